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
import posixpath
import re
import unicodedata
from urllib import parse

from gptface_jax.core.errors import UserError
from gptface_jax.data.prepare import texts

_DOMAIN = re.compile(r"(\*\.)?([\w-]+\.)+[\w-]+\.?")
# What comes before the host, as browsers read it: "https:/\\a.org" is "https://a.org".
_SCHEME = re.compile(r"(https?:|[a-z][a-z0-9+.-]*:(?=/))?/*", re.IGNORECASE)
_PORT = re.compile(r":(\d*)$")
_LONGEST = 1024  # characters; no host has more than 253
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class OptOut:
    """Entries of a list.

    Attributes:
      addresses: as of `_normal`.
      domains: as of `_host`.
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
            parts = _PORT.sub("", re.split("[/?]", address, maxsplit=1)[0]).split(".")
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
    """host/path?query, as it compares: without what is the same picture.

    That are scheme, user, usual port, fragment, and the spellings of a host and of a
    path. Nothing is no address: what is odd must not slip through.
    """
    text = re.sub(r"[\t\r\n]", "", url.strip()).replace("\\", "/").partition("#")[0]
    text, mark, query = _SCHEME.sub("", text, count=1).partition("?")
    host, slash, path = text.partition("/")
    host = host.rpartition("@")[2]
    port = _PORT.search(host)
    kept = port[0] if port and port[1] not in ("", "80", "443") else ""
    path = posixpath.normpath(slash + parse.unquote(path).lstrip("/"))
    path = path.rstrip("/") if slash else ""
    return f"{_host(_PORT.sub('', host))}{kept}{path}{mark if query else ''}{query}"


def _host(name: str) -> str:
    """A host as it compares: small letters, foreign ones in ASCII, without "www.".

    As browsers map it (UTS #46, not transitional) and spell it (Punycode, RFC 3492). No
    label of a host has more than 63 characters: such a one is left as it is, and of
    what is longer than any host the end counts.
    """
    name = parse.unquote(name)[-_LONGEST:]
    name = unicodedata.normalize("NFKC", texts.stream_safe(name)).lower()
    labels = [
        label
        if label.isascii() or len(label) > 63
        else f"xn--{label.encode('punycode').decode()}"
        for label in name.replace("\u3002", ".").rstrip(".").split(".")
    ]
    return ".".join(labels).removeprefix("www.")


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
            domains.add(_host(entry.removeprefix("*.")))
        else:
            raise UserError(
                f"opt_out '{path}' line {number}: {entry[:60]!r} is no address, domain "
                "or sha256:HEX; nothing is prepared before the list is right"
            )
    digest = hashlib.sha256(data).hexdigest()[:16]
    return OptOut(frozenset(addresses), frozenset(domains), frozenset(digests), digest)
