"""The command `mmsimple`: parses, calls, prints; no logic of its own. Importing it needs no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from mmconvert import __version__
from mmconvert.cli.common import EXISTING, FOLDER, PATH, reporting
from mmconvert.cli.process import run, say
from mmconvert.errors import UsageError
from mmconvert.report import SCHEMA, Reporter
from mmsimple.data.templates import TEMPLATES

MODES = ("train", "eval", "train_and_eval")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="mmsimple")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train the simple multimodal model and generate text with it.

    To convert checkpoints, see mmconvert --help.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.argument("config", type=PATH, metavar="CONFIG")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of a step  [default: the file's, or 1]")
@click.option(
    "--sequence-length",
    type=click.IntRange(min=1),
    help="Positions of a sample, image tokens too  [default: max_position_embeddings]",
)
@reporting
def validate(reporter: Reporter, config: Path, batch_size: int | None, sequence_length: int | None) -> None:
    """Check the model in CONFIG, a params file: its parts, what trains, and the memory of a step. Reads no data."""
    _check_installed("torch", "train")
    from mmsimple.report import draw_size, size_document
    from mmsimple.size import size_of_file

    found = size_of_file(config, batch_size=batch_size, sequence_length=sequence_length)
    reporter.result(size_document(found), lambda: draw_size(found))


@cli.command()
@click.option("--annotations", type=EXISTING, required=True, help="LLaVA's records: a .json list, or .jsonl.")
@click.option("--images", type=FOLDER, required=True, help="What the records' image paths are relative to.")
@click.option("--tokenizer", type=FOLDER, required=True, help="The folder of the language model's tokenizer.")
@click.option("--out", type=PATH, required=True, help="The folder to write; it appears when all is done.")
@click.option("--phase", type=click.IntRange(1, 2), required=True, help="1: captions alone; 2: conversations.")
@click.option("--config", type=EXISTING, required=True, help="The params file that will be trained with.")
@click.option("--template", type=click.Choice(TEMPLATES), help="[default: 1: plain; 2: the tokenizer's or vicuna_v1]")
@click.option("--max-seq-length", type=click.IntRange(1, 2**24), help="[default: max_position_embeddings]")
@click.option(
    "--max-num-img", type=click.IntRange(0, 2**16), help="Image slots of a sample  [default: the file's, or 1]"
)
@click.option("--too-long", type=click.Choice(["skip", "truncate"]), default="skip", show_default=True)
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at --out.")
@reporting
def prepare(reporter: Reporter, annotations: Path, out: Path, workers: int, overwrite: bool, **said: Any) -> None:
    """Make training files of LLaVA's annotations and pictures. Stopped, it goes on where it was when run again."""
    _check_installed("torch", "train")
    from mmsimple.data.job import job_of
    from mmsimple.data.prepare import prepare as run
    from mmsimple.report import draw_prepared

    job = job_of(**said)
    with reporter.progress("preparing", of_bytes=False) as progress:
        found = run(annotations, out, job, phase=said["phase"], workers=workers, overwrite=overwrite, progress=progress)
    reporter.summary({**found.params, "out": str(found.out)}, lambda: draw_prepared(found))


@cli.command()
@click.argument("config", type=EXISTING, metavar="CONFIG")
@click.option("--model-dir", type=PATH, required=True, help="Where checkpoints and metrics.jsonl go.")
@click.option("--mode", type=click.Choice(MODES), default="train_and_eval", show_default=True)
@click.option("--init-from", type=EXISTING, help="Begin with these weights, of whatever mmconvert reads.")
@click.option(
    "--resume", help="auto: the newest of --model-dir; never; or a checkpoint  [default: the file's, or auto]"
)
@click.option("--max-steps", type=click.IntRange(min=1), help="Updates, those before a restart included.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="[default: the file's backend]")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a value of CONFIG.")
@reporting
def train(
    reporter: Reporter,
    config: Path,
    model_dir: Path,
    mode: str,
    init_from: Path | None,
    resume: str | None,
    max_steps: int | None,
    device: str | None,
    settings: tuple[str, ...],
) -> None:
    """Train the model that CONFIG describes, or take a run up again where it was stopped, however that was."""
    _check_installed("torch", "train")
    from mmsimple.report import draw_run, run_document
    from mmsimple.train.reading import read_run_file
    from mmsimple.train.run import run as run_of
    from mmsimple.train.start import resume_of

    if max_steps is not None:
        settings = (*settings, "trainer.init.loop.max_epochs=null", f"trainer.init.loop.max_steps={max_steps}")
    done = run_of(
        read_run_file(config, settings),
        model_dir,
        mode=mode,
        init_from=init_from,
        resume=resume_of(resume),
        device=device,
        say=reporter.note,
    )
    reporter.summary(run_document(done), lambda: draw_run(done))


@cli.command()
@click.argument("run_dir", type=FOLDER, metavar="RUN_DIR")
@click.option("--out", type=PATH, metavar="FILE.png", help="A file there is replaced  [default: RUN_DIR/plot.png]")
@reporting
def plot(reporter: Reporter, run_dir: Path, out: Path | None) -> None:
    """Draw loss, learning rate and throughput of the run in RUN_DIR, its --model-dir, as a PNG. Needs no torch."""
    _check_installed("matplotlib", "plot")
    from mmsimple.plot import plot as plot_of

    path, updates = plot_of(run_dir, out)
    document = {"schema": SCHEMA, "plot": str(path), "updates": updates}
    reporter.summary(document, lambda: print(f"{path}: {updates:,} update{'s' if updates != 1 else ''}"))


@cli.command()
@click.option("--checkpoint", type=EXISTING, required=True, help="What mmconvert reads: CS, LLaVA, two folders.")
@click.option("--image", "images", type=EXISTING, multiple=True, help="A picture; once for each.")
@click.option("--prompt", required=True, help="With <image> where each picture is; without, they come first.")
@click.option("--template", type=click.Choice(TEMPLATES), help="[default: the tokenizer's own, or vicuna_v1]")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0: the likeliest.")
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from so many of the likeliest tokens.")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), default=1.0, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--tokenizer", type=FOLDER, help="A folder with another tokenizer than the checkpoint's.")
@click.option("--config", type=EXISTING, help="The params file of a CS checkpoint, where it lies elsewhere.")
@click.option("--dtype", type=click.Choice(["keep", "fp32", "bf16", "fp16"]), default="keep", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@reporting
def generate(
    reporter: Reporter,
    checkpoint: Path,
    images: tuple[Path, ...],
    prompt: str,
    template: str | None,
    max_new_tokens: int,
    tokenizer: Path | None,
    config: Path | None,
    dtype: str,
    device: str,
    **sampling: Any,
) -> None:
    """Answer a question about pictures; the words come as the model finds them."""
    _check_installed("torch", "train")
    from mmconvert.api import Hints
    from mmsimple.data.images import open_image
    from mmsimple.device import DTYPES, device_of
    from mmsimple.generation import Sampling
    from mmsimple.reply import ChatModel

    pictures = [open_image(path) for path in images]
    chat = ChatModel.from_checkpoint(
        checkpoint,
        hints=Hints(config=config),
        tokenizer=tokenizer,
        template=template,
        dtype=DTYPES[dtype],
        device=device_of(device),
    )
    asked = chat.prompt(prompt, pictures)
    answer = chat.answer(asked, max_new_tokens=max_new_tokens, sampling=Sampling(**sampling))
    if reporter.as_json:
        document = {"schema": SCHEMA, "template": chat.template, "prompt_tokens": asked.text_input_ids.shape[1]}
        reporter.result({**document, "text": "".join(answer)}, lambda: None)
        return
    say(answer)


def _check_installed(package: str, extra: str) -> None:
    """Raise UsageError for a package that is not there, naming the extra that brings it."""
    if find_spec(package) is None:
        raise UsageError(f'this needs {package}: pip install "mmconvert[{extra}]"')


def main() -> None:
    """Run the command line; the exit codes are those of `mmconvert.errors`."""
    run(cli, "mmsimple")
