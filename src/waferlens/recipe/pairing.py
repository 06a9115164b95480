"""How the name of an image gives that of its reference, as `{}_test.jpg:{}_temp.jpg`; `{}` is what they share."""

from __future__ import annotations

from pathlib import Path, PurePath

from waferlens.errors import InputError, UsageError

SHARED = "{}"


def forms_of(pattern: str) -> tuple[str, str]:
    """The form of an image's name, and that of its reference's.

    Raises:
        UsageError: the pattern is none.
    """
    parts = pattern.split(":")
    if len(parts) != 2 or any(part.count(SHARED) != 1 for part in parts):
        raise UsageError(f"--pair-by {pattern}: expected two names with {{}} in each, as {{}}_test.jpg:{{}}_temp.jpg")
    return parts[0], parts[1]


def shared_part(name: str, form: str) -> str | None:
    """What stands for `{}` in a name; None if the name is of another form."""
    head, tail = form.split(SHARED)
    if len(name) < len(head) + len(tail) or not (name.startswith(head) and name.endswith(tail)):
        return None
    return name[len(head) : len(name) - len(tail)]


def is_compared(path: str, pattern: str, elsewhere: bool = False) -> bool:
    """Whether an image is one that is compared, and no reference.

    Args:
        path: Of the image.
        pattern: As in `forms_of`.
        elsewhere: Whether references lie in a folder of their own.
    """
    ours, theirs = forms_of(pattern)
    name = PurePath(path).name
    if shared_part(name, ours) is None:
        return False
    # of `{}.png:{}_good.png`, both fit a_good.png: what says more of the name decides
    return elsewhere or shared_part(name, theirs) is None or len(ours) >= len(theirs)


def reference_path(path: str | Path, pattern: str | None, folder: Path | None = None) -> Path:
    """The file of an image's reference.

    Args:
        path: Of the image.
        pattern: As in `forms_of`; None for a reference of the same name in the folder.
        folder: Where references lie; beside the image if None.

    Raises:
        InputError: it is not there, or the image's name is of another form.
    """
    name, where = Path(path).name, Path(path).parent if folder is None else folder
    if pattern is not None:
        ours, theirs = forms_of(pattern)
        shared = shared_part(name, ours)
        if shared is None:
            raise InputError(path, f"its name is not of the form {ours} that --pair-by gives")
        name = theirs.replace(SHARED, shared)
    if not (where / name).is_file():
        raise InputError(path, f"its reference {where / name} is not there; see --pair-by")
    return where / name
