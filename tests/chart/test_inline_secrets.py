"""Inline secrets in the values are refused wherever they are; references are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from tests.chart.conftest import Helm


def with_file(helm: Helm, text: str, folder: Path) -> tuple[str, ...]:
    """The arguments for a release whose `account.yaml` has this text."""
    values = folder / "values.yaml"
    values.write_text(yaml.safe_dump({"policies": {"files": {"account.yaml": text}}}), encoding="utf-8")
    return "-f", str(helm.chart / "ci" / "files-values.yaml"), "-f", str(values)


UNREADABLE = "a document in it is not YAML, or not a mapping"
REFERENCE = "this is not a reference but may be a secret"
HIDDEN = {
    "on the separator's line": ("--- {kind: Account, spec: {credentials: {key: hunter2}}}", REFERENCE),
    "after the end of a document": ("a: 1\n...\nspec: {credentials: {key: hunter2}}", REFERENCE),
    "behind other breaks of lines": ("a: 1\r---\rspec: {credentials: {key: hunter2}}", REFERENCE),
    "in what is no YAML": ("a: [\n  key: hunter2", UNREADABLE),
    "in a list": ("- spec: {credentials: {key: hunter2}}", UNREADABLE),
    "as the whole text": ("hunter2", UNREADABLE),
    "in a list of credentials": ("spec: {credentials: [hunter2]}", "account.yaml, spec.credentials: " + REFERENCE),
    "as the credentials": ("spec: {credentials: hunter2}", REFERENCE),
    "as a name of a credential": ("spec: {credentials: {hunter2}}", "spec.credentials: a name in it has no value"),
    "deeper in a credential": ("spec: {credentials: {a: {b: hunter2}}}", "spec.credentials.a.b: " + REFERENCE),
    "beside a reference": ('spec: {credentials: {key: "env:hunter2 it is"}}', REFERENCE),
    "in base 64": ("spec: {credentials: {key: !!binary aHVudGVyMg==}}", REFERENCE),
    "by an alias": ("a: &a {b: hunter2}\nspec: {credentials: *a}", REFERENCE),
    "by a key that is written twice": ("a: {options: {secret: hunter2}}\na: {options: {}}", "secret: " + REFERENCE),
    "in an address with slashes escaped": ('a: "https:/\\x2fuser:hunter2@venue"', "an address in it holds a user"),
    "as the user of an address": ("a: https://hunter2@venue/", "an address in it holds a user"),
} | {
    f"in option {name}": (f"spec: {{options: {{deep: [{{{name}: hunter2}}]}}}}", REFERENCE)
    for name in (
        "apiKey", "api_key", "secret", "password", "passphrase", "token", "private_key", "privateKey", "access-token",
        "key",
    )
}  # fmt: skip


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_secret_in_a_policy_file_is_refused_wherever_it_is(helm: Helm, hidden: str, tmp_path: Path) -> None:
    """The message names the place and the correct form, and does not repeat the secret."""
    text, message = HIDDEN[hidden]
    refused = helm.refusal(*with_file(helm, text, tmp_path))
    assert "policies.files: account.yaml" in refused
    assert message in refused
    assert "hunter2" not in refused


@pytest.mark.parametrize(
    "text",
    [
        "%YAML 1.2\n---\nspec: {credentials: {key: 'env:KEY', secret: \"file:/run/a b/c\"}}\n---\n# nothing\n...\n",
        "--- # first\nkind: Account\n--- !!map\nkind: Account\n",
        "spec: {credentials: {}, options: {token: null, secret: env:SECRET}}",
        "# the secret: it is in the vault\nspec: {allow_withdrawal_keys: true, endpoint: 'https://venue/a@b'}\r\n",
    ],
)
def test_references_and_other_texts_are_accepted(helm: Helm, text: str, tmp_path: Path) -> None:
    """In any YAML style of the document."""
    assert helm.template(*with_file(helm, text, tmp_path))


def test_every_document_of_the_repository_is_accepted(helm: Helm, repository: Path, tmp_path: Path) -> None:
    """No shipped example contains a secret or is mistaken for one."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((repository / "examples").rglob("*.yaml"))]
    for page in sorted((repository / "docs").rglob("*.md")):
        texts += [
            block
            for block in re.findall("```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
            if block.startswith("apiVersion: killswitch.dev/v1")
        ]
    assert len(texts) > 20
    assert helm.template(*with_file(helm, "\n---\n".join(texts), tmp_path))
