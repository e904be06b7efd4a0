"""Commands that plugins add, found when the plugin is named."""

from __future__ import annotations

import pytest

COMMAND = """
import click
@click.command()
@click.option('--name', default='you')
@click.pass_obj
def greet(session, name): click.echo(f'hello {{name}}, active: {{"{module}" in session.open_host().active}}')
@hookimpl
def xtuner_commands(): return [Command(name='{command}', summary='says hello', target='{module}:{target}')]
"""


@pytest.fixture
def add(site, source):
    """Install a plugin with one command, module and plugin of one name."""

    def install(module: str, command: str, target: str = "greet") -> None:
        text = source(COMMAND.format(module=module, command=command, target=target))
        site.add(f"stranger-{module.replace('_', '-')}", plugins={module: module}, modules={module: text})

    return install


def test_a_named_plugin_adds_its_command_to_help_and_it_runs_with_the_host(cli, add):
    add("greeter", "greet")

    assert "says hello" in cli("--plugins", "greeter", "--help").out
    assert cli("--plugins", "greeter", "greet", "--name", "Ann").out == "hello Ann, active: True\n"


def test_without_its_plugin_a_command_is_unknown_and_the_way_out_is_told(cli, add):
    add("greeter_b", "greet")

    result = cli("greet")

    assert result.code == 2
    assert "there is no command 'greet'" in result.err
    assert "a plugin's command needs --plugins NAME before it" in result.err


@pytest.mark.parametrize(
    ("command", "target", "said"),
    [
        ("run", "greet", "adds the command 'run', which the core itself has"),
        ("other", "hookimpl", "which is no click command"),
        ("other", "nothing", "has no 'nothing'"),
    ],
)
def test_a_command_that_cannot_be_is_refused_with_its_plugin(cli, add, command, target, said):
    module = f"greeter_{command}_{target}"
    add(module, command, target)

    result = cli("--plugins", module, "--help")

    assert result.code == 3
    assert module in result.err
    assert said in result.err
