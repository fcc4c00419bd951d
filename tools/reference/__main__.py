"""Writes all generated files: `make reference`."""

from __future__ import annotations

from pathlib import Path

from tools.reference.pages import generated

REPOSITORY = Path(__file__).resolve().parents[2]

for name, text in generated().items():
    path = REPOSITORY / name
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        print(f"written: {name}")
