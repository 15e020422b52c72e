"""The command line `celebflow`; torch and mlflow are imported only by the commands that need them."""

from pathlib import Path

import click

from celebflow import errors


class _Group(click.Group):
    """A group of commands that ends on SIGTERM and CelebflowError as the stages do; Ctrl-C is click's."""

    def __call__(self, *args: object, **kwargs: object) -> None:
        errors.run_to_exit(self.main)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="celebflow")
def main() -> None:
    """Teach a frozen VGG19 to name the people in photographs.

    The pipeline itself is run with DVC: `dvc repro` (see README.md).
    """


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def sample(folder: Path) -> None:
    r"""Draw the demo's photographs of 31 invented people into FOLDER.

    They are the same files, byte for byte, each time. Files of other names in FOLDER are an error, so that nobody's
    own photographs are mixed with invented ones.

    \b
    Example:
      celebflow sample data     # then: dvc exp run -S backbone.weights=untrained
    """
    from tqdm import tqdm

    from celebflow import samples

    drawn = samples.draw_sample_data(folder)
    for _ in tqdm(drawn, "drawing", samples.PHOTOGRAPH_COUNT, unit="photograph", disable=None):
        pass
    click.echo(f"{samples.PHOTOGRAPH_COUNT} photographs of {len(samples.PEOPLE)} invented people are in {folder}.")


if __name__ == "__main__":
    main()
