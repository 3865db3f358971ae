"""A command that refuses an option given twice, where only the last one would be read."""

from __future__ import annotations

from collections import Counter

import typer
from typer.core import TyperCommand


class StrictCommand(TyperCommand):
    """Options that may be repeated are lists; any other may be given once."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # its types are private to typer
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            if count > 1 and parameter.param_type_name == "option" and not parameter.multiple:
                raise typer.BadParameter(f"is given {count} times. Give it once.", param_hint=parameter.opts[-1])
        return super().parse_args(ctx, args)
