"""`ksctl explain`: the page of a diagnostic code, or the history of a decision."""

from __future__ import annotations

import re

import click

from killswitch.cli import completion, options
from killswitch.cli.terminal import encode_record, print_answer, print_markdown

_CODE = re.compile(r"KS\d+", re.IGNORECASE)


@options.verb("ksctl explain KS2102", "ksctl explain 3f9a --store ks.sqlite")
@click.argument("subject", metavar="CODE|DECISION", shell_complete=completion.codes)
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner; required for a decision.")  # fmt: skip
@options.page_output
def explain(subject: str, store_at: str | None, output: str) -> None:
    """Explain a diagnostic code (KS1203), or a decision by its id or the beginning of it.

    For a decision: policy line, triggers, values, snapshot, orders, fills, and the final state at the venue.
    """
    if _CODE.fullmatch(subject):
        if output == "html":
            raise click.UsageError("--output html is for a decision: a code has text, markdown and json")
        _explain_code(subject.upper(), output)
        return
    if store_at is None:
        raise click.UsageError(
            f"{subject} is not a code such as KS1203; to explain a decision, name the store with --store FILE"
        )
    from killswitch.cli.session import opened_store
    from killswitch.operations.pages.decision import decision_history_of, decision_history_record, decision_page

    try:
        with opened_store(store_at, read_only=True) as store:
            history = decision_history_of(store, subject)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from error
    print_answer(output, lambda: encode_record(decision_history_record(history)), lambda: decision_page(history))


def _explain_code(code: str, output: str) -> None:
    from killswitch.policy.diagnostics.pages import page

    try:
        text = page(code)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"the diagnostic pages of this installation are damaged ({error}): reinstall it"
        ) from error
    if output == "json":
        click.echo(encode_record({"code": code, "page": text}))
    elif output == "markdown":
        click.echo(text.rstrip("\n"))
    else:
        print_markdown(text)
