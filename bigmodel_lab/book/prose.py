"""The Markdown of a notebook's cell, written for JupyterLab, to the Markdown that mdBook reads.

One regular expression finds, in this order, what must be left alone (code), and then headings, notes, formulas and
links. What it finds is replaced; every other character passes through unchanged.
"""

import html
import re

TOKENS = re.compile(
    r"""
    ^[ >]*(?P<fence>`{3,}|~{3,})(?P<language>[^\n]*)\n(?P<block>.*?)^[ >]*(?P=fence)[`~]*[ ]*$
  | (?P<ticks>`+)(?!`)(?:(?!\n[ ]*\n).)+?(?<!`)(?P=ticks)(?!`)
  | \\[\\$`]
  | ^[ ]{0,3}(?P<level>\#{1,6})[ ]+(?P<title>[^\n]+?)[ ]*\#*[ ]*$
  | ^>[ ]\*\*(?P<note>Note|Tip|Important|Warning|Caution)\.\*\*[ ]?
  | \$\$(?P<display>.+?)\$\$
  | (?P<environment>\\begin\{(?P<name>(?:align|equation|gather)\*?)\}.+?\\end\{(?P=name)\})
  | (?P<bracket>[(\uff08]?)\$(?P<inline>(?=\S)(?:\\.|(?!\n[ ]*\n)[^$\\])+?(?<=\S))\$(?!\d)
  | (?P<dollar>\$)
  | (?P<link>(?P<picture>!\[[^\]\n]*)?\]\()(?P<url>[^)\s]+)
  | (?P<attribute>\b(?:href|(?P<source>src))=")(?P<value>[^"]+)
  | (?P<definition>^[ ]{0,3}\[[^\]\n]+\]:[ ]+)(?P<target>\S+)
    """,
    re.X | re.S | re.M,
)


def titles(source: str) -> list[tuple[int, str]]:
    """Return the headings of a cell as (level, text without Markdown), in order."""
    return [(len(m["level"]), plain(m["title"])) for m in TOKENS.finditer(source) if m["title"]]


def plain(title: str) -> str:
    """Return a heading's text as a reader sees it: link, code and emphasis marks removed."""
    return re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)).strip()


def slug(title: str) -> str:
    """Return the id that mdBook and GitHub give a heading: "Why it works?" is "why-it-works"."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def convert(source: str, page) -> str:
    """Return the cell's Markdown for mdBook.

    page : answers for what depends on the place: `formula(tex, display)`, `diagram(text)`, `href(url, picture)`,
        `heading()` the id of the next heading, `after_title()` what follows a heading of level 1
    """

    def replace(match):
        if match["title"]:
            title = TOKENS.sub(replace, match["title"])
            below = f"\n\n{page.after_title()}\n" if match["level"] == "#" else ""
            return f"{match['level']} {title} {{#{page.heading()}}}{below}"
        if match["fence"] and match["language"].strip() == "mermaid":
            return page.diagram(match["block"]) + "\n"
        if match["note"]:
            return f"> [!{match['note'].upper()}]\n> "
        if match["display"] or match["environment"]:
            return page.formula(unquote(match["display"] or match["environment"]), True)
        if match["inline"]:
            formula = match["bracket"] + page.formula(match["inline"], False)
            # Browsers break a line between a bracket and a formula.
            together = match["bracket"] and len(match["inline"]) < 25
            return f'<span class="together">{formula}</span>' if together else formula
        if match["dollar"]:
            near = match.string[match.start() :].split("\n")[0][:40]
            raise ValueError(f"the $ at {near!r} ends no formula: write \\$ for a dollar sign.")
        for before, url in (("link", "url"), ("attribute", "value"), ("definition", "target")):
            if match[before]:
                picture = bool(match["picture"] or match["source"])
                return match[before] + page.href(match[url], picture=picture)
        return match[0]

    return TOKENS.sub(replace, source)


def unquote(tex: str) -> str:
    """Return a formula from within a block quote without the ">" that begins its further lines."""
    first, *rest = tex.split("\n")
    if rest and all(line.lstrip().startswith(">") for line in rest):
        rest = [line.lstrip()[1:] for line in rest]
    return "\n".join([first, *rest])


def fenced(code: str, language: str) -> str:
    """Return a fenced block that `code` cannot end early."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def folded(summary: str, markdown: str, kind: str) -> str:
    """Return Markdown behind a line that opens it."""
    return f'<details class="{kind}">\n<summary>{html.escape(summary)}</summary>\n\n{markdown}\n\n</details>'
