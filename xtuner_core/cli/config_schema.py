"""`xtuner-core config schema`: what an editor needs to complete and check a recipe."""

from __future__ import annotations

import click

from xtuner_core.cli.options import plugins_option
from xtuner_core.cli.output import write_json
from xtuner_core.cli.session import Session


@click.command("schema")
@plugins_option("Cover the keys of these plugins too.")
@click.pass_obj
def schema(session: Session, plugins: tuple[str, ...]) -> None:
    r"""Write the JSON schema of a recipe, every key with its documentation.

    \b
    xtuner-core config schema --plugins qwen3_moe > recipe.schema.json
    # then, as the first line of a recipe, for editors that speak to the YAML language server:
    # yaml-language-server: $schema=recipe.schema.json
    """
    from xtuner_core.config.recipe_schema import recipe_schema

    host = session.open_host()
    host.activate(*plugins)
    write_json(recipe_schema(host))
