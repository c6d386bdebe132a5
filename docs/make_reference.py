"""The API reference as HTML, of the docstrings, with its links checked.

  python docs/make_reference.py --out site

Every module of the package with a page of its own (pdoc, in the development group);
`site/index.html` is where to begin. Links to pages or names that are not there are
listed, and the status is 1.
"""

from __future__ import annotations

import argparse
import html.parser
import importlib
import pathlib
import pkgutil
import sys
import urllib.parse
import warnings
from collections.abc import Sequence

import pdoc
import pdoc.render

# What classes have from Linen and from Sequence: pdoc names it, and has no page of it.
INHERITED = ("init", "apply", "count", "index")


class _Links(html.parser.HTMLParser):
    """The ids of a page, and where it links to."""

    def __init__(self):
        super().__init__()
        self.ids, self.targets = set(), set()

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif name == "href" and tag == "a" and value:
                self.targets.add(value)


def broken_links(folder: pathlib.Path) -> list[str]:
    """ "page: target" of every link within the folder that leads nowhere, sorted."""
    pages = {}
    for path in folder.rglob("*.html"):
        pages[path.resolve()] = links = _Links()
        links.feed(path.read_text())
    found = []
    for path, links in pages.items():
        for target in links.targets:
            url = urllib.parse.urlsplit(target)
            if url.scheme or url.netloc:
                continue
            name = urllib.parse.unquote(url.path)
            page = (path.parent / name).resolve() if name else path
            if page.suffix == ".html" and page in pages:
                fragment = urllib.parse.unquote(url.fragment)
                if not fragment or fragment in pages[page].ids:
                    continue
                if fragment.rpartition(".")[2] in INHERITED:
                    continue
            elif page.exists():
                continue
            found.append(f"{path.relative_to(folder.resolve())}: {target}")
    return sorted(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="site", help="folder of the pages")
    parser.add_argument(
        "--module", default="gptface_jax", help="a part of the package, for a trial"
    )
    options = parser.parse_args(arguments)
    out = pathlib.Path(options.out)
    package = importlib.import_module(options.module)
    inside = pkgutil.walk_packages(package.__path__, f"{options.module}.")
    # Modules of packages without `__all__` are found by pdoc itself, and named again.
    warnings.filterwarnings("ignore", "The module specification")
    # Of types that a subclass's module does not import; they are printed as written.
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    pdoc.render.configure(docformat="google", show_source=True, search=True)
    pdoc.pdoc(options.module, *(m.name for m in inside), output_directory=out)
    pages = sum(1 for _ in out.rglob("*.html"))
    broken = broken_links(out)
    print(f"{pages} pages in {out}, {len(broken)} broken links", *broken, sep="\n  ")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
