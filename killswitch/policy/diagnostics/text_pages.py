"""Pages of the codes about files, YAML and documents: KS10xx, KS11xx, KS12xx."""

from __future__ import annotations

from killswitch.policy.diagnostics.problem import Page

_FILES = (
    Page(
        "KS1001",
        "A file or folder cannot be read",
        "The path does not exist, is no file, or may not be read by whoever runs ksctl. Nothing is assumed in its "
        "place: a policy set with a missing file is not the policy set that was meant.",
        "ksctl validate polices/        # misspelt folder",
        "Check the path and the permissions.",
    ),
    Page(
        "KS1002",
        "A folder holds no policy file",
        "Below the folder there is no file that ends in .yaml or .yml. Hidden files and folders are not read. An empty "
        "policy set would watch nothing and say that all is well.",
        "ksctl validate docs/",
        "Name the folder that holds the policies, or give the files one of the two endings.",
    ),
    Page(
        "KS1003",
        "A file is too large",
        "A file of more than 1 MiB is not read. Policies are written and reviewed by people; what is larger is data "
        "that has ended up in the wrong folder, or an attack on the reader.",
        "policies/market-data.yaml      # 10 MB of prices",
        "Split the file, or move it out of the policy folder.",
    ),
    Page(
        "KS1004",
        "A file is not UTF-8",
        "Policies are UTF-8, with or without a byte order mark. The place is that of the first byte that cannot be.",
        "A file saved as Latin-1 or UTF-16 by an editor.",
        "Save the file as UTF-8.",
    ),
    Page(
        "KS1005",
        "A control character",
        "The text holds a character that cannot be seen and that YAML forbids, such as NUL. Two readers might disagree "
        "about what such a text says.",
        'name: "fall-15m<U+0000>"',
        "Take the character out.",
    ),
)

_YAML = (
    Page(
        "KS1101",
        "This is not YAML",
        "The text breaks off being YAML at the place shown. The cause is often just above it: a bracket or a quote "
        "that is not closed, a colon that is missing, indentation that does not line up. What follows in the file has "
        "not been checked.",
        "scope: {each: account, match: {market: swap}\nmax_gap: 10m       # the bracket above is still open",
        "Close what is open, and line up the keys of one mapping.",
    ),
    Page(
        "KS1102",
        "A tab where YAML wants blanks",
        "YAML is indented by blanks only; a tab has no width that everybody agrees on.",
        "spec:\n<TAB>mode: enforce",
        "Replace the tab by blanks, and set the editor to do so.",
    ),
    Page(
        "KS1103",
        "A key is given twice",
        "The same key stands twice in one mapping. Most YAML readers keep the last one without a word; here, which of "
        "two thresholds counts must not be a guess.",
        "fall-15m: {signal: equity.drawdown, window: 15m, at_least: 4.5%, at_least: 45%, on_unknown: hold}",
        "Keep one of the two.",
    ),
    Page(
        "KS1104",
        "An anchor or an alias",
        "`&name` and `*name` let one place of a file say what another place means. A reviewer who sees a changed line "
        "must see all that it changes, and nested aliases can grow a small file without bound, so both are refused.",
        "cooldown: &c 30m\n...\ncooldown: *c",
        "Write the value out wherever it is used.",
    ),
    Page(
        "KS1105",
        "A merge key",
        "`<<` takes keys over from another mapping. What a stage does must stand in the stage.",
        "- <<: *defaults\n  name: close-everything",
        "Write the keys out.",
    ),
    Page(
        "KS1106",
        "A tag",
        "`!!float`, `!Ref` and their like change how a value is read, or make some readers run code. Policies need "
        "none.",
        "level: !!int 3",
        "Take the tag out. Text that YAML would read as a number goes in quotes.",
    ),
    Page(
        "KS1107",
        "Nested too deep, or too much of it",
        "Something is nested more than 40 deep, or one file holds more than 100,000 values. A policy nests about ten "
        "deep. The rest of the file has not been read.",
        "a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ ... ]]]]]]",
        "Take the nesting apart, or split the file.",
    ),
    Page(
        "KS1108",
        "A directive",
        "A line such as `%YAML 1.1` changes the rules by which the file is read: in YAML 1.1 `on` is true and `1:30` "
        "is ninety. Policies are YAML 1.2, always.",
        "%YAML 1.1\n---\napiVersion: killswitch.dev/v1",
        "Take the line that begins with % out.",
    ),
    Page(
        "KS1109",
        "A key that is no word",
        "A mapping has a list or a mapping as its key.",
        "? [fall-15m, fall-1h]\n: {signal: equity.drawdown}",
        "Write the key as a word.",
    ),
)

_DOCUMENTS = (
    Page(
        "KS1201",
        "A document that is no mapping",
        "Each document, between two lines of `---`, is a mapping with apiVersion, kind, metadata and spec. A list or a "
        "single word is not.",
        "- apiVersion: killswitch.dev/v1\n  kind: Policy",
        "Separate documents by `---` instead of making them a list.",
    ),
    Page(
        "KS1202",
        "A file without a document",
        "The file is empty, or holds nothing but comments. It may have been emptied by mistake.",
        "# policies go here",
        "Write a document, or take the file out.",
    ),
    Page(
        "KS1203",
        "No apiVersion",
        "The document does not say `apiVersion`, so it is no policy document. Other YAML (a values file, a workflow) "
        "in a policy folder is refused rather than skipped: the same mistake in a real policy would otherwise leave "
        "it out without a word.",
        "kind: Policy\nmetadata: {name: futures-drawdown}",
        "Add `apiVersion: killswitch.dev/v1`, or keep other YAML elsewhere.",
    ),
    Page(
        "KS1204",
        "A version that this program does not read",
        "`apiVersion` names a version of the documents' format that is not known here: it is misspelt, or was written "
        "for another release.",
        "apiVersion: killswitch.dev/v2",
        "Write `killswitch.dev/v1`, or use the release that knows the other version.",
    ),
    Page(
        "KS1205",
        "No kind",
        "The document does not say what it is.",
        "apiVersion: killswitch.dev/v1\nmetadata: {name: futures-drawdown}",
        "Add `kind:`, one of Policy, Account, Ranking, CorrelationGroup.",
    ),
    Page(
        "KS1206",
        "No such kind",
        "`kind` names nothing that this program knows. Kinds are written with capitals.",
        "kind: policy",
        "Write the kind as the message suggests; `ksctl schema all` lists them.",
    ),
    Page(
        "KS1207",
        "A name is taken",
        "Two documents of one kind have the same name. State, history and decisions are kept under that name, so they "
        "would be mixed up.",
        "kind: Policy\nmetadata: {name: futures-drawdown}    # and the same again in another file",
        "Rename one of the two, or take out the copy.",
    ),
    Page(
        "KS1208",
        "A built-in name",
        "Some names are always there: the rankings `default` and `killswitch-v6`. If a document could take "
        "one, the same policy would mean different things in different folders.",
        "kind: Ranking\nmetadata: {name: default}",
        "Give your own ranking another name, and refer to it by `rank:`.",
    ),
)

PAGES: tuple[Page, ...] = (*_FILES, *_YAML, *_DOCUMENTS)
