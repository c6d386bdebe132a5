"""The list of those who do not want to be in the set.

A text file, an entry a line, # begins a comment:

* an address (https://example.org/a.jpg): this picture;
* a domain (example.org): all pictures of it and of its sub-domains;
* sha256:HEX of a picture's bytes, or of an address for those who will not publish it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from urllib import parse

from gptface_jax.core.errors import UserError

_DOMAIN = re.compile(r"(\*\.)?([\w-]+\.)+[\w-]+", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class OptOut:
    """Entries of a list.

    Attributes:
      addresses: without what is the same picture: scheme, fragment, letter case of the
        host.
      domains: in lower case.
      digests: 64 hex digits.
      digest: of the file; 16 hex digits.
    """

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()
    digest: str = ""

    def __len__(self) -> int:
        return len(self.addresses) + len(self.domains) + len(self.digests)

    def holds(self, url: str, data: bytes = b"") -> bool:
        """Whether a picture is on the list.

        Args:
          url: where it was; "" for nowhere.
          data: its bytes.
        """
        if url and (self.addresses or self.domains or self.digests):
            address = _normal(url)
            host = address.partition("/")[0].partition(":")[0]
            parts = host.split(".")
            above = {".".join(parts[i:]) for i in range(len(parts))}
            if address in self.addresses or above & self.domains:
                return True
            if hashlib.sha256(url.encode("utf-8", "replace")).hexdigest() in (
                self.digests
            ):
                return True
        if not (data and self.digests):
            return False
        return hashlib.sha256(data).hexdigest() in self.digests


def _normal(url: str) -> str:
    """host/path?query, as it compares."""
    try:
        parts = parse.urlsplit(url.strip())
    except ValueError:
        return url.strip()
    host = parts.netloc.rpartition("@")[2].lower().removeprefix("www.")
    query = f"?{parts.query}" if parts.query else ""
    return f"{host}{parse.unquote(parts.path).rstrip('/')}{query}"


def read(path: str) -> OptOut:
    """The list in a file; "" is an empty one.

    Raises:
      UserError: no such file, or a line that is none of the three.
    """
    if not path:
        return OptOut()
    try:
        data = pathlib.Path(path).expanduser().read_bytes()
        lines = data.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"opt_out '{path}' cannot be read ({error})") from None
    addresses, domains, digests = set(), set(), set()
    for number, line in enumerate(lines, 1):
        entry = line.partition(" #")[0].strip()
        if not entry or entry.startswith("#"):
            continue
        if "://" in entry:
            addresses.add(_normal(entry))
        elif _DIGEST.fullmatch(entry.lower()):
            digests.add(entry.lower().partition(":")[2])
        elif _DOMAIN.fullmatch(entry):
            domains.add(entry.lower().removeprefix("*.").removeprefix("www."))
        else:
            raise UserError(
                f"opt_out '{path}' line {number}: {entry[:60]!r} is no address, domain "
                "or sha256:HEX; nothing is prepared before the list is right"
            )
    digest = hashlib.sha256(data).hexdigest()[:16]
    return OptOut(frozenset(addresses), frozenset(domains), frozenset(digests), digest)
