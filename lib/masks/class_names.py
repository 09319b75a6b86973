"""Names of face parts, the two published orders of their numbers, and what a label means in a list
of classes. Light, so that a config can be checked without torch.

Two networks and one dataset count the same 19 classes differently (2 is the nose in the one and the
left brow in the other), and horizontal flips in training confused left and right in the published
parsers: hence orders by name, and left and right under one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

CELEBAMASK_HQ = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""Numbers from 0 as in the README of CelebAMask-HQ, and in SegFormer face parsers."""
BISENET = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""Numbers from 0 as in face-parsing.PyTorch (BiSeNet, `79999_iter`)."""
ORDERS = {"celebamask_hq": CELEBAMASK_HQ, "bisenet": BISENET}
PARTS = CELEBAMASK_HQ[1:]
"""Of which CelebAMask-HQ has files; those that an image does not show are left out there."""
UNIONS = {
    "eyes": ("l_eye", "r_eye"),
    "brows": ("l_brow", "r_brow"),
    "ears": ("l_ear", "r_ear"),
    "mouth": ("mouth", "u_lip", "l_lip"),
    "neck": ("neck", "neck_l"),
}
"""A name -> the parts it stands for."""


def parts_of(label: str, names: Sequence[str], *, unite: bool) -> tuple[str, ...]:
    """The names that `label` stands for: itself, and with `unite` what `UNIONS` puts under it.

    Raises:
        ValueError: none of `names`; says the nearest.
    """
    meant = {label, *(UNIONS.get(label, ()) if unite else ())}
    found = tuple(name for name in names if name in meant)
    if found:
        return found
    known = [*names]
    if unite:
        known += [n for n, parts in UNIONS.items() if n not in names and {*parts} & {*names}]
    nearest = get_close_matches(label, known, n=1, cutoff=0.0)
    hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
    raise ValueError(f"no class is called {label!r}{hint}; expected one of {', '.join(known)}")


def numbers_of(
    labels: Iterable[int | str], names: Mapping[int, str], *, unite: bool
) -> tuple[int, ...]:
    """The class numbers that `labels` stand for, sorted; `names` is number -> name.

    Raises:
        ValueError: a name or number that no class has.
    """
    found: set[int] = set()
    for label in labels:
        if isinstance(label, str):
            parts = parts_of(label, list(names.values()), unite=unite)
            found |= {number for number, name in names.items() if name in parts}
        elif label in names:
            found.add(label)
        else:
            raise ValueError(
                f"no class has the number {label}; expected one from {min(names)} to {max(names)}"
            )
    return tuple(sorted(found))


def mixed_orders(table: Mapping[str, int]) -> str | None:
    """What shows that a table of names -> numbers mixes both published orders; None if nothing
    does.
    """
    of_one = {order: {name: k for k, name in enumerate(names)} for order, names in ORDERS.items()}
    (first, second) = ORDERS
    only_first = _only_in(table, of_one[first], of_one[second])
    only_second = _only_in(table, of_one[second], of_one[first])
    if not only_first or not only_second:
        return None
    return (
        f"{only_first[0]}: {table[only_first[0]]} is of the order {first} and"
        f" {only_second[0]}: {table[only_second[0]]} of {second}"
    )


def _only_in(
    table: Mapping[str, int], order: Mapping[str, int], other: Mapping[str, int]
) -> list[str]:
    """Names whose number is that of the one order and not of the other."""
    return sorted(n for n, k in table.items() if order.get(n) == k != other.get(n))
