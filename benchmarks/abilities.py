"""Which system can be asked what: writes the tables of `docs/componet.md` from `stemwise.evaluate.abilities`.

    python benchmarks/abilities.py            # print them
    python benchmarks/abilities.py --write    # put them into the page

Every tick of ours is a test: `pytest tests/evaluate/test_abilities.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stemwise.evaluate.abilities import abilities_table, published_table

PAGE = Path(__file__).parent.parent / "docs" / "componet.md"


def replaced(text: str, name: str, table: str) -> str:
    """The page with the lines between `<!-- NAME -->` and `<!-- NAME: end -->` replaced."""
    begin, end = f"<!-- {name} -->\n", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit(f"{PAGE}: no region {name}")
    return f"{head}{begin}{table}\n{end}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    tables = {"abilities": abilities_table(), "published": published_table()}
    if not args.write:
        print("\n\n".join(tables.values()))
        return
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        text = replaced(text, name, table)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
