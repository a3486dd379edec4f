"""Messages of a command that a signal stops."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import pytest
import typer

from pennyweight.cli.interruption import continuable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_can_go_on_says_how_and_exits_with_the_signal_s_code(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, continuable("the same command continues"):
        signal.raise_signal(number)
    assert caught.value.exit_code == 128 + number
    line = f"pennyweight: stopped by {number.name}; the same command continues\n"
    assert capsys.readouterr().err == line


def test_any_other_command_names_an_interruption_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def command() -> None:
        signal.raise_signal(signal.SIGINT)

    main = import_module("pennyweight.cli.main")
    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr(sys, "argv", ["pennyweight"])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "pennyweight: interrupted\n"
