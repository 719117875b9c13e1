"""benchmarks/comparators_table.py, translation_table.py and what they share: who is trained, who counts as trained, what the
tables say of them. The commands themselves are tested elsewhere."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

from healmap import methods, recipes
from healmap.api import experiment_for, make_phantoms
from healmap.config import to_plain
from healmap.data.dataset import manifest, open_dataset
from healmap.errors import UsageError
from healmap.experiment import DataConfig
from healmap.training.folder import judge
from tests.conftest import ROOT

SMALL = {
    "cyclegan-small", "cyclegan-shape-small", "stargan-small", "fixed-point-gan-small", "descargan-small", "healthygan-small",
    "brainomaly-small", "va-gan-small", "pix2pix-small", "unit-small", "acl-gan-small", "council-gan-small", "cogan-small",
    "bigan-small", "restoration-small", "padim-small", "patchcore-small", "resnet50-cam-small", "densenet169-small",
    "dcls-small", "vae-small", "autoencoder-small", "denoising-autoencoder-small", "f-anogan-small", "ganomaly-small",
    "alad-small", "alocc-small", "patch-scan-gan-small",
}  # fmt: skip
MACHINE = {"processor": "Abacus", "cores": 2, "accelerators": []}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("table_runs")


@pytest.fixture
def script(shared: ModuleType) -> ModuleType:
    return importlib.import_module("comparators_table")


@pytest.fixture
def translation(shared: ModuleType) -> ModuleType:
    return importlib.import_module("translation_table")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, shared: ModuleType, script: ModuleType, translation: ModuleType) -> list[list[str]]:
    """The commands that the scripts give, which leave behind what the real ones would. pix2pix fails."""
    given: list[list[str]] = []

    def fake(command: list[str], environment: dict[str, str], allowed: tuple[int, ...] = (0,)) -> str:
        given.append(command)
        verb, recipe = command[3:5]
        out = Path(command[command.index("--out" if verb == "train" else "-o") + 1])
        if recipe == "pix2pix-small":
            return "healmap: pairs are needed"
        out.mkdir(parents=True, exist_ok=True)
        if verb == "train":
            minutes, size, seed = (command[command.index(option) + 1] for option in ("--minutes", "--size", "--seed"))
            settings = command[command.index("--set") + 1 : command.index("--resume")]
            ended(out, recipe, *settings, minutes=float(minutes), size=int(size), seed=int(seed))
        elif verb == "evaluate":
            tree = {"protocol": {"needs": "labels"}, "image": {"auroc": {"value": 0.75, "n": 9}}}
            (out / "metrics.json").write_text(json.dumps(tree))
        else:
            (out / "table.md").write_text("| a table |\n")
        return ""

    for module in (shared, script, translation):
        monkeypatch.setattr(module, "last_words", fake)
    return given


def ended(out: Path, recipe: str, *settings: str, minutes: float = 3.0, size: int = 64, seed: int = 0, **told: object) -> Path:
    """What a finished run records of itself."""
    out.mkdir(parents=True, exist_ok=True)
    experiment = to_plain(experiment_for(recipe, settings=settings, minutes=minutes, size=size, seed=seed))
    (out / "experiment.json").write_text(json.dumps(experiment))
    done = {"at": "2026-11-20T10:00:00Z", "steps": 5, "seconds": 1.0}
    record = {"threads": experiment["training"]["threads"], "device": "cpu", "machine": MACHINE, "finished": done, **told}
    (out / "manifest.json").write_text(json.dumps(record))
    return out


# ---- what the tables share ------------------------------------------------------------------------------------------------

AS_ASKED = ("data.normalisation=foreground-median", "training.threads=1")


def differences(shared: ModuleType, run: Path, recipe: str = "padim-small", *settings: str) -> list[str]:
    return shared.Training(3.0).differences(recipe, run, [AS_ASKED[0], *settings])


def test_a_run_that_was_trained_as_asked_counts(shared: ModuleType, tmp_path: Path) -> None:
    run = ended(tmp_path / "a", "padim-small", *AS_ASKED)
    assert differences(shared, run) == []
    assert differences(shared, tmp_path / "none") == []
    free = ended(tmp_path / "b", "padim-small", *AS_ASKED, "training.save_every=7", "data.workers=0")
    assert differences(shared, free) == []
    plain = json.loads((run / "experiment.json").read_text())
    del plain["training"]["clip"]  # a setting that came later: the run had its default
    (run / "experiment.json").write_text(json.dumps(plain))
    assert differences(shared, run) == []
    assert differences(shared, run, "padim-small", "training.clip=1") == ["training.clip 0 then, 1 now"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"minutes": 4.0}, "training.minutes 4 then, 3 now"),
        ({"size": 48}, "data.size 48 then, 64 now"),
        ({"seed": 1}, "training.seed 1 then, 0 now"),
        ({"threads": 2}, "training.threads 2 then, 1 now"),
        ({"settings": ("method.epsilon=0.5",)}, "method.epsilon 0.5 then, 0.01 now"),
        ({"recipe": "padim-filters"}, "recipe padim-filters then, padim-small now"),
        ({"recipe": "vae-small"}, "method_name vae then, padim now"),
    ],
)  # fmt: skip
def test_a_run_that_was_trained_otherwise_does_not(shared: ModuleType, tmp_path: Path, change: dict, said: str) -> None:
    recipe, settings = change.pop("recipe", "padim-small"), change.pop("settings", ())
    run = ended(tmp_path / "a", recipe, *AS_ASKED, *settings, **change)
    assert said in differences(shared, run)
    wanted = [("padim-small", tmp_path, run, [AS_ASKED[0]])]
    with pytest.raises(SystemExit, match=r"a was trained otherwise: .* then, .* now.*delete this run$") as stopped:
        shared.refuse_others(shared.Training(3.0), wanted)
    assert "\n" not in str(stopped.value)


def test_a_run_of_other_images_does_not(shared: ModuleType, tmp_path: Path) -> None:
    seeds = [make_phantoms(tmp_path / str(seed), patients=10, size=32, seed=seed).root for seed in (0, 1)]
    run, training = ended(tmp_path / "a", "padim-small", *AS_ASKED, size=32), shared.Training(3.0, size=32)
    record = json.loads((run / "manifest.json").read_text())
    record["data"] = {
        "train": manifest(open_dataset(seeds[0], "train", DataConfig(size=32, normalisation="foreground-median")))
    }
    (run / "manifest.json").write_text(json.dumps(record))
    shared.refuse_others(training, [("padim-small", seeds[0], run, [AS_ASKED[0]])])
    with pytest.raises(SystemExit, match=r"a was trained otherwise: its training images are not those of .*1, or "):
        shared.refuse_others(training, [("padim-small", seeds[1], run, [AS_ASKED[0]])])
    with pytest.raises(SystemExit, match=r"a was trained otherwise: .*absent"):
        shared.refuse_others(training, [("padim-small", tmp_path / "absent", run, [AS_ASKED[0]])])


def test_a_run_without_its_settings_does_not_count(shared: ModuleType, tmp_path: Path) -> None:
    run = ended(tmp_path / "a", "padim-small", *AS_ASKED)
    (run / "experiment.json").write_text("{")
    assert "is no JSON" in differences(shared, run)[0]
    (run / "experiment.json").unlink()
    assert "cannot be read" in differences(shared, run)[0]


def test_a_folder_of_the_name_of_a_method_is_not_thrown_away(
    shared: ModuleType, calls: list[list[str]], tmp_path: Path
) -> None:
    """It holds somebody's notes: training goes there with --resume and is refused, the script leaves it as it is."""
    run = tmp_path / "pix2pix"
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    assert shared.Training(3.0).run("pix2pix-small", tmp_path, run)
    assert (run / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match=r"there is notes\.txt"):
        judge(run, resume="--resume" in calls[0])


def test_what_is_said_of_runs_is_what_they_say(shared: ModuleType, tmp_path: Path) -> None:
    one = ended(tmp_path / "one", "padim-small", "training.threads=1")
    assert shared.conditions([one]) == "3 minutes each, 1 thread, 64 px, Abacus with 2 cores, 2026-11-20"
    later = {"at": "2026-11-22T10:00:00Z"}
    two = ended(tmp_path / "two", "padim-small", minutes=2.5, threads=2, finished=later, machine={**MACHINE, "processor": "B"})
    said = "3 or 2.5 minutes each, 1 or 2 threads, 64 px, Abacus with 2 cores or B with 2 cores, 2026-11-20 to 2026-11-22"
    assert shared.conditions([one, two]) == said
    assert shared.conditions([]) == "no run"


def test_text_in_markdown(shared: ModuleType) -> None:
    assert shared.escaped("a|b\n[c](d) <i> `e` *f_g* \\") == r"a\|b \[c\](d) \<i\> \`e\` \*f\_g\* " + "\\\\"


# ---- the comparators' table -----------------------------------------------------------------------------------------------


def test_every_method_by_its_small_recipe(script: ModuleType) -> None:
    chosen = script.asked_for([])
    assert set(chosen.values()) == SMALL
    assert set(chosen) == set(methods.names())
    assert next(iter(chosen)) == "restoration"
    assert all(recipes.get(recipe).method_name == name for name, recipe in chosen.items())
    assert script.asked_for(["stargan=stargan-celeba", "restoration"]) == {
        "restoration": "restoration-small", "stargan": "stargan-celeba",
    }  # fmt: skip


def test_settings_go_to_the_method_that_they_name(script: ModuleType) -> None:
    words = ["stargan:method.lambda_rec=5", "training.ema=0.9"]
    assert script.settings_of("stargan", words)[-2:] == ["method.lambda_rec=5", "training.ema=0.9"]
    assert script.settings_of("restoration", words)[-1:] == ["training.ema=0.9"]
    assert "method.lambda_rec=5" not in script.settings_of("restoration", words)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "data").mkdir()
    named = ["--data", f"mine={tmp_path / 'data'}", "--methods", "pix2pix", "restoration"]
    return [str(tmp_path / "work"), *named, "--minutes", "0.1"]


def test_trained_compared_and_not_done_again(script: ModuleType, calls: list[list[str]], words: list[str]) -> None:
    tables = script.main(words)
    assert [command[3] for command in calls] == ["train", "train", "compare"]
    assert "--resume" in calls[0]
    runs = calls[2][4 : calls[2].index("--data")]
    assert [Path(run).name for run in runs] == ["restoration"], "what was not trained is not compared, but listed"
    assert "| a table |" in tables["mine"]
    text = (Path(words[0]) / "table.md").read_text()
    assert "- pix2pix, not trained: pairs are needed" in text
    assert text.startswith("## mine: 0.1 minutes each, 1 thread, 64 px, Abacus with 2 cores, 2026-11-20\n")
    calls.clear()
    script.main(words)
    assert [command[3:5] for command in calls] == [["train", "pix2pix-small"], ["compare", runs[0]]]


def test_other_minutes_in_the_same_place(script: ModuleType, calls: list[list[str]], words: list[str]) -> None:
    script.main(words)
    calls.clear()
    with pytest.raises(SystemExit, match=r"restoration was trained otherwise: training.minutes 0.1 then, 4 now: "):
        script.main([*words, "--minutes", "4"])
    assert not calls, "nothing is trained, nothing compared"


def test_a_finished_run_is_compared_whatever_failed_before(
    script: ModuleType, calls: list[list[str]], words: list[str]
) -> None:
    work = Path(words[0]) / "mine"
    done = ended(work / "runs" / "pix2pix", "pix2pix-small", *AS_ASKED, minutes=0.1)
    (work / "failed").mkdir()
    (work / "failed" / "pix2pix.txt").write_text("pairs were needed\n")
    table = script.compare(["pix2pix"], work, work, script.Training(0.1), 20)
    assert calls[0][3:5] == ["compare", str(done)]
    assert table == "| a table |\n"


def test_training_that_ends_without_a_finished_run_is_a_failure(
    script: ModuleType, shared: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared, "last_words", lambda *_: "")
    line = script.train("padim", "padim-small", tmp_path, tmp_path / "mine", script.Training(0.1), [])
    assert line == "mine padim: its manifest does not say that it is finished"


def test_help(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    assert "comparators_table.py WORK" in capsys.readouterr().out


def test_data_that_are_not_there(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such file"):
        script.main([str(tmp_path), "--data", f"lgg_flair={tmp_path / 'absent'}"])
    with pytest.raises(SystemExit, match="write phantoms, or NAME=PATH"):
        script.main([str(tmp_path), "--data", "lgg_flair"])


# ---- the translation table ------------------------------------------------------------------------------------------------


@pytest.fixture
def side_by_side(translation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr(translation, "make_data", lambda work, seed: None)
    return [str(tmp_path / "work"), "--methods", "stargan", "pix2pix", "--data", "ellipses", "--minutes", "3", "--jobs", "1"]


def test_translations_side_by_side(translation: ModuleType, calls: list[list[str]], side_by_side: list[str]) -> None:
    translation.main(side_by_side)
    assert [c[3] for c in calls] == ["train", "evaluate", "train"]
    assert "--assume-diseased" in calls[1]
    text = (Path(side_by_side[0]) / "table.md").read_text()
    assert text.startswith("ellipses, 3 minutes each, 1 thread, 64 px, Abacus with 2 cores, 2026-11-20:\n\n| method |")
    assert "| no change | | | – | – | – | – | – | – | 0 |\n" in text
    assert "| stargan | labels | 5 | 0.750 | – | – | – | – | – | – |\n" in text
    assert "| pix2pix | | not finished | | | | | | | |\n" in text
    calls.clear()
    translation.main(side_by_side)
    assert [c[4] for c in calls] == ["pix2pix-small"]


def test_translations_trained_otherwise(translation: ModuleType, calls: list[list[str]], side_by_side: list[str]) -> None:
    translation.main(side_by_side)
    calls.clear()
    with pytest.raises(SystemExit, match=r"ellipses-stargan was trained otherwise: training.seed 0 then, 1 now: "):
        translation.main([*side_by_side, "--seed", "1"])
    assert not calls


def test_an_evaluation_without_its_run_is_not_done(
    translation: ModuleType, calls: list[list[str]], side_by_side: list[str]
) -> None:
    translation.main(side_by_side)
    calls.clear()
    run = Path(side_by_side[0]) / "ellipses-stargan"
    (run / "manifest.json").unlink()
    args = Namespace(work=run.parent, minutes=3.0, threads=1, seed=0)
    assert translation.one("stargan", "ellipses", args) == "ellipses stargan: done"
    assert [c[3] for c in calls] == ["train", "evaluate"]


def test_restoration_deforms_where_the_lesions_do(translation: ModuleType) -> None:
    assert translation.recipe_of("restoration", "ellipses") == "restoration-warp"
    assert translation.recipe_of("restoration", "phantoms") == "restoration-small"
    assert translation.figure({"twin": {"mse": {"value": 0.00123}}}, "twin.mse") == "0.0012"
    assert translation.figure({"twin": {"mse": {"value": None}}}, "twin.mse") == "–"
