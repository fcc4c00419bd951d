"""A credential is hidden in every form in which a client may write it."""

from __future__ import annotations

import pytest

from killswitch.accounts.redaction import HIDDEN, Redactor
from tests.e2e.credential_leaks import forms

SECRETS = ("SECRET-PLANTED", 'p/a+s s"w\\ö=rd', "KEY&plänted%20")


@pytest.mark.parametrize("secret", SECRETS)
def test_no_form_of_a_credential_remains_in_a_text(secret: str) -> None:
    """Plain, in a URL, in a form, as text and bytes of Python, as JSON, in hex and inside of base64."""
    redactor = Redactor([secret])
    for form, written in forms(secret).items():
        redacted = redactor.hide(f"before {written.decode('latin-1' if form.startswith('hex') else 'utf-8')} after")
        assert written.decode() not in redacted, form
        assert HIDDEN in redacted, form


def test_a_short_secret_does_not_make_texts_unreadable() -> None:
    """Of a secret of four letters only the letters themselves are hidden."""
    assert Redactor(["abcd"]).hide("YWJj and abcd") == f"YWJj and {HIDDEN}"
