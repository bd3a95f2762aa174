"""Write docs/use.md's table of operators from their records: `python benchmarks/operators_table.py`."""

from __future__ import annotations

from spikeplug.operators import RECORDS

_MODULES = {"rms_norm": "RMSNorm", "layer_norm": "LayerNorm"}  # written out in nn.py: they have parameters


def table() -> str:
    """Return a Markdown table: function, formula, module."""
    rows = ["| function | result | module |", "|---|---|---|"]
    for name, record in RECORDS.items():
        formula = record.formula.replace("|", "\\|")
        rows.append(f"| `{name}` | {formula} | {record.module or _MODULES.get(name, '')} |")
    return "\n".join(rows)


if __name__ == "__main__":
    from pages import write  # here: a test that imports this file has pages of its own

    write("docs/use.md", "operators", table())
