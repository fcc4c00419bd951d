"""Write every generated page into docs/reference/."""

from __future__ import annotations

from pathlib import Path

from tools.reference.pages import generated

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"

for name, text in generated().items():
    path = FOLDER / name
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        print(f"written: docs/reference/{name}")
