"""Logins by a JWT that a proxy or an identity provider has signed: exact issuer and audience, pinned keys.

A header of the JWT that names a key somewhere else (`jku`, `x5u`, `jwk`) is never followed, and the algorithm is the
configuration's and never the JWT's choice. Symmetric algorithms are refused: who can verify could sign. What a person
may do follows from the claims by a list of grants, of which the first that matches counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import jwt
import msgspec
from msgspec import Struct

from killswitch.server.access import Role

Algorithm = Literal["EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]
LONGEST: Final = 8_192
"""Characters of a JWT."""
LARGEST_FILE: Final = 1 << 20
KNOWN_EXAMPLES: Final = (
    "u1SU1LfVLPHCozMxH2Mo",  # RSA, shown by jwt.io
    "ofgWCuLjybRlzo0tZWJj",  # RFC 7515, A.2
    "0vx7agoebGcQSuuPiLJX",  # RFC 7517, A.1
    "f83OJ3D2xF1Bg8vub9tL",  # RFC 7515, A.3
    "MKBCTNIcKUSDii11ySs3",  # RFC 7517, A.1
    "11qYAYKxCrfVS_7TyWQH",  # RFC 8037, A.2
    "EVs_o5-uQbTjL3chynL4",  # ES256, shown by jwt.io
)
"""How the modulus or the x of published example keys begins, whose private parts everybody has."""


class Grant(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody may do whose claim `claim` is the value, or a list that has it."""

    claim: str
    value: str
    role: Role
    scopes: tuple[str, ...]


class JwtSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose JWTs are accepted. `keys`: a file with a JWK set of public keys. `principal`: the claim of a person's name.

    `header`: the header that a declared proxy puts the JWT into; left out: `Authorization: Bearer`.
    """

    issuer: str
    audience: str
    keys: str
    algorithms: tuple[Algorithm, ...]
    grants: tuple[Grant, ...]
    principal: str = "sub"
    header: str | None = None


class JwtSettingsError(Exception):
    """The configuration cannot be used; the message has the cause and the way out."""


class RefusedJwtError(Exception):
    """The JWT is not accepted. The message is for the record of the server, never for the sender."""


class JwtIdentity(Struct, frozen=True):
    """Who somebody is by a JWT, and until when."""

    principal: str
    role: Role
    scopes: tuple[str, ...]
    expires_at: float


class JwtVerifier:
    """Verifies JWTs by pinned keys, which are read once."""

    def __init__(self, settings: JwtSettings) -> None:
        """JwtSettingsError for keys that cannot be read, are symmetric, private, or published as an example."""
        if not settings.algorithms or not settings.grants or not settings.issuer or not settings.audience:
            raise JwtSettingsError("`jwt` needs an issuer, an audience, and at least one algorithm and one grant")
        self.settings = settings
        self._keys = _keys_in(Path(settings.keys))

    def identity(self, token: str, now: datetime) -> JwtIdentity:
        """Who it is. RefusedJwtError unless the signature, the issuer, the audience, the times and a grant fit."""
        if len(token) > LONGEST:
            raise RefusedJwtError("it is too long")
        try:
            claims = self._claims(token, jwt.get_unverified_header(token))
            expires, begins, at = float(claims["exp"]), float(claims.get("nbf", 0)), now.timestamp()
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise RefusedJwtError(f"{type(error).__name__}: {error}") from error
        if not begins <= at < expires:  # false for what is no number
            raise RefusedJwtError("it is not valid now")
        if claims["aud"] not in (self.settings.audience, [self.settings.audience]):
            raise RefusedJwtError("it is for another audience, or for several")
        principal = claims.get(self.settings.principal)
        if not isinstance(principal, str) or not 0 < len(principal) <= 200 or not principal.isprintable():
            raise RefusedJwtError(f"its claim {self.settings.principal} names nobody")
        for grant in self.settings.grants:
            found = claims.get(grant.claim)
            if grant.value == found or (isinstance(found, list) and grant.value in found):
                return JwtIdentity(principal, grant.role, grant.scopes, expires)
        raise RefusedJwtError("no grant fits its claims")

    def _claims(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        name = header.get("kid")
        if name is None and len(self._keys) > 1:
            raise RefusedJwtError("it names no key, and there are several")
        key = next(iter(self._keys.values())) if name is None else self._keys.get(str(name))
        if key is None:
            raise RefusedJwtError("it names a key that is not pinned")
        if header.get("alg") != key.algorithm_name:
            raise RefusedJwtError("its algorithm is not that of its key")
        # The caller compares the times, by the clock of the server, and the audience, which must be the only one.
        return jwt.decode(
            token, key, algorithms=list(self.settings.algorithms), issuer=self.settings.issuer,
            options={"require": ["exp", "iat", "iss", "aud"], "verify_aud": False, "verify_exp": False,
                     "verify_nbf": False, "verify_iat": False},
        )  # fmt: skip


def _keys_in(path: Path) -> dict[str, jwt.PyJWK]:
    """The public keys of a JWK set by their `kid`."""
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(LARGEST_FILE), type=dict[str, list[dict[str, Any]]])["keys"]
    except (OSError, msgspec.MsgspecError, KeyError) as error:
        raise JwtSettingsError(f"{path} is no JWK set that can be read: {error}") from error
    keys: dict[str, jwt.PyJWK] = {}
    for number, each in enumerate(found):
        if each.get("kty") == "oct":
            raise JwtSettingsError(f"{path}: a symmetric key is refused, because who verifies by it could sign")
        if "d" in each:
            raise JwtSettingsError(f"{path}: a private key does not belong here: leave only its public part")
        if str(each.get("n", each.get("x", ""))).startswith(KNOWN_EXAMPLES):
            raise JwtSettingsError(f"{path}: this key is published as an example, with its private part")
        name = str(each.get("kid", f"key {number}"))
        try:
            key = jwt.PyJWK(each)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise JwtSettingsError(f"{path}: the key {name} cannot be used: {error}") from error
        if name in keys:
            raise JwtSettingsError(f"{path}: two keys are called {name}")
        keys[name] = key
    if not keys:
        raise JwtSettingsError(f"{path} has no key")
    return keys
