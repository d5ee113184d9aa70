"""One request of the page: its parameters checked, then handed to the explorer. Nothing else reaches it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from tag2mask.errors import InputError
from tag2mask.explore.answers import Explorer
from tag2mask.explore.embedding import KINDS
from tag2mask.explore.opened import MOMENTS

Parameters = dict[str, list[str]]


class Refused(Exception):
    """A request that is not answered, with the reason in one sentence."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Question:
    """A request with its parameters: numbers in their range and names out of a list, or ``Refused``."""

    def __init__(self, explorer: Explorer, parameters: Parameters) -> None:
        self.explorer, self.parameters = explorer, parameters

    def text(self, name: str) -> str:
        """A parameter as it came; empty where there is none."""
        return self.parameters.get(name, [""])[0]

    def number(self, name: str, count: int) -> int:
        """A parameter from 0 to below ``count``."""
        text = self.text(name)
        if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) >= count:
            raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is {text[:40]!r}; expected a number from 0 to {count - 1}.")
        return int(text)

    def choice(self, name: str, options: list[str]) -> str:
        """A parameter that is one of ``options``."""
        if self.text(name) not in options:
            expected = ", ".join(options) or "nothing, as there is none"
            raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is {self.text(name)[:40]!r}; expected {expected}.")
        return self.text(name)

    @property
    def seed(self) -> int:
        """The seed that is asked about."""
        return int(self.choice("seed", [str(seed) for seed in self.explorer.run.config.seeds]))

    @property
    def image(self) -> int:
        """The number of the image."""
        return self.number("image", len(self.explorer.images(self.seed)))

    @property
    def c(self) -> int:
        """The number of the class."""
        return self.number("class", len(self.explorer.images(self.seed).classes))

    @property
    def page(self) -> int:
        """The number of the page, 0 where none is named."""
        return self.number("page", 1_000_000) if self.text("page") else 0

    def prototypes(self) -> tuple[int, str, str]:
        """Which prototypes: seed, method and moment."""
        seed = self.seed
        method = self.choice("method", self.explorer.run.with_prototypes(seed))
        moment = self.choice("moment", self.explorer.run.moments(seed, method)) if self.text("moment") else MOMENTS[-1]
        return seed, method, moment

    def methods(self) -> list[str]:
        """The methods whose maps are compared, each once."""
        options = self.explorer.run.trained(self.seed)
        if not options:
            raise InputError("nothing is trained in this run for this seed, so there are no maps to show.")
        return list(dict.fromkeys(self.choice(name, options) for name in ("left", "right")))

    def run(self) -> dict[str, Any]:
        """The run as a whole."""
        return self.explorer.overview()

    def classes(self) -> dict[str, Any]:
        """What each class is confused with."""
        return self.explorer.confused(*self.prototypes())

    def negatives(self) -> dict[str, Any]:
        """The prototypes of a class."""
        return self.explorer.negatives(*self.prototypes(), self.c)

    def uses(self) -> dict[str, Any]:
        """Where a prototype suppresses."""
        return self.explorer.uses(*self.prototypes(), self.c, self.number("rank", 100_000), self.page)

    def counting(self) -> dict[str, Any]:
        """How far the pass over all images is."""
        return self.explorer.counting(*self.prototypes(), begin=False)

    def begin_counting(self) -> dict[str, Any]:
        """Begin it."""
        return self.explorer.counting(*self.prototypes(), begin=True)

    def plane(self) -> dict[str, Any]:
        """The map of prototypes."""
        seed, method, _ = self.prototypes()
        return self.explorer.plane(seed, method, "tsne" if self.choice("kind", list(KINDS)) == "tsne" else "pca")

    def chosen_images(self) -> tuple[int | None, bool]:
        """Which photos: of a class, those without a tag, or (None, False) all."""
        untagged = self.text("class") == "none"
        return (None if untagged or not self.text("class") else self.c), untagged

    def images(self) -> dict[str, Any]:
        """A page of photos."""
        return self.explorer.page_of_images(self.seed, *self.chosen_images(), self.page)

    def one_image(self) -> dict[str, Any]:
        """A photo and its neighbours."""
        return self.explorer.image(self.seed, self.image, *self.chosen_images())

    def maps(self) -> dict[str, Any]:
        """Maps of an image and a class."""
        return self.explorer.maps(self.seed, self.image, self.methods(), self.c)

    def blocked(self) -> dict[str, Any]:
        """The block list."""
        return self.explorer.blocked()

    def thumbnail(self) -> bytes:
        """A small photo."""
        return self.explorer.thumbnails(self.seed).jpeg(self.image)

    def photo(self, longest: int) -> bytes:
        """A large photo."""
        return self.explorer.photo(self.seed, self.image, longest)

    def new_photo(self, content: bytes) -> dict[str, Any]:
        """Maps of a photo that was sent."""
        return self.explorer.maps_of_new(self.seed, content, self.methods())

    def block(self, values: object) -> dict[str, Any]:
        """Put a pair of photo and class on the block list, or take it off."""
        images = self.explorer.images(self.explorer.run.config.seeds[0])
        if not isinstance(values, dict) or set(values) != {"image", "class", "blocked"}:
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected image, class and blocked.")
        image, c, blocked = values["image"], values["class"], values["blocked"]
        for value, count in ((image, len(images)), (c, len(images.classes))):
            if type(value) is not int or not 0 <= value < count:
                reason = f"Expected an image and a class by number, not {str(value)[:40]!r}."
                raise Refused(HTTPStatus.BAD_REQUEST, reason)
        if type(blocked) is not bool:
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected blocked to be true or false.")
        return self.explorer.block(image, c, blocked)
