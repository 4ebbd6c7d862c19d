"""A converter: two formats of one model, joined by tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmconvert.configs import ConfigTable, Unchanged
from mmconvert.releases import Release
from mmconvert.spec import A, B, Config, Side, Table, reflected
from mmconvert.spellings import Change
from mmconvert.tokenizers import Files

# Two configs of one part become one, with what should be told; ValueError where they disagree.
Merge = Callable[[Config, Config], tuple[dict[str, Any], Sequence[str]]]


def no_advice(config: Config, carried: Config) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Place:
    """Where a model stands inside a larger one: the path of its config, its keys' prefix, its folder of assets."""

    config: str
    keys: str
    assets: str = ""


@dataclass(frozen=True)
class Binding:
    """How a format keeps in one folder what its converter's home keeps in several.

    `home_config` gives a config of this format as the home's configs by part, as far as no rule owns them, and
    `own_config` the other way, but for fields of the home that this format has no field for. `apart` takes the files
    beside the weights, named as in the folder, with the config, and gives the home's, named by part; `together` the
    other way, with what a user should know of it. Tokens that one side alone has are added to the tokenizer's files,
    and taken off. Both raise InputRefused for files that do not fit the config.
    """

    home_config: Callable[[Config], Config]
    own_config: Callable[[Config], Config]
    has_no_field: Callable[[str], bool]
    apart: Callable[[Config, Files], Files]
    together: Callable[[Config, Files], tuple[Files, Sequence[str]]]


@dataclass(frozen=True)
class Usage:
    """How a program loads what is written, or evaluates it: Markdown, in which `DIR` stands for the folder."""

    title: str
    text: str


@dataclass(frozen=True)
class Alone:
    """How a part of a model is written by itself (`--only`): as the folder of the format's part `folder`.

    `config` gives its config from the whole's. `weights` is what its file is called, without an ending, and `container`
    what it is unless the user says. Where it is not `whole`, it is of use beside another model only: nothing but its
    config and licences come with it. `tower` is the field of its config that holds the path of the tower's folder, and
    `beside` what that says where nobody knows better.
    """

    folder: str
    config: Callable[[Config], Config]
    weights: str = "model"
    container: str = "safetensors"
    whole: bool = True
    tower: str | None = None
    beside: str = ""
    usage: Callable[[Config], Sequence[Usage]] = lambda config: ()


@dataclass(frozen=True)
class Format:
    """One side of a converter: how its checkpoints are recognised and laid out.

    `parts` gives, for each part of the checkpoint, the test by which a config is known as that part's; a format of one
    folder has the single part `""`. The keys of a part's tensors carry its name and a slash in front.
    `folders` names the folders that are written, from the config. `aliases` lists prefixes that older or newer writers
    use, and the prefix that they stand for. `links` are config fields that hold the path of another part's folder, and
    `dtype_fields` those that hold the element type. `companions` are second config files that may lie beside a part's
    own, and how they are merged with it. `fragments` are files of folders that hold less than a model, with what to
    tell their owner; `tower` is the part that users name with `--vision-tower`.
    `changes` are what releases spell otherwise. `of_training` are the config's fields that say how the model trains and
    not what it is: a params file into which a checkpoint's model is put keeps its own. `by_name` formats look like
    another model's and are recognised only where the user names the model. `inside` lists where copies of this model
    stand in a larger one's checkpoint, from that one's config.
    `settle` has the last word on a config that is about to be written, for what only the original config knows.
    `documents` are small files that a complete export needs, made from the config where none travelled along.
    `tokenizer` names the part that the tokenizer belongs to and the config field with the vocabulary's rows; `needs`
    lists files without which readers of this format fail, with what to do. `tokenizer_files` puts the files of that
    part into words that its readers know. `casts_to_float16` is true where these do that to every weight.
    `binding` is for a format whose home has more folders than it.
    `alone` gives the parts, by their names in tables, that can be written by themselves. `usage` says for a config how
    programs load what is written. `strangers` are `model_type`s that are like it and not converted, with the reason.
    """

    name: str
    parts: Mapping[str, Callable[[Config], bool]]
    folders: Callable[[Config], Mapping[str, str]] = lambda config: {"": ""}
    aliases: tuple[tuple[str, str], ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    dtype_fields: tuple[str, ...] = ()
    companions: Mapping[str, tuple[str, Merge]] = field(default_factory=dict)
    fragments: Mapping[str, str] = field(default_factory=dict)
    tower: str | None = None
    changes: tuple[Change, ...] = ()
    of_training: tuple[str, ...] = ()
    by_name: bool = False
    inside: Callable[[Config], Sequence[Place]] | None = None
    documents: Callable[[Config], Mapping[str, Any]] = lambda config: {}
    settle: Callable[[Config, Config], Config] = lambda config, original: config
    tokenizer: tuple[str, str] | None = None
    tokenizer_files: Callable[[Files], Files] = lambda files: files
    casts_to_float16: bool = False
    needs: Callable[[Config], Mapping[str, str]] = lambda config: {}
    binding: Binding | None = None
    alone: Mapping[str, Alone] = field(default_factory=dict)
    usage: Callable[[Config], Sequence[Usage]] = lambda config: ()
    strangers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Substitute:
    """Tensors of side a that stand in for others: a tower trained and saved inside the text checkpoint.

    Where the field at `flag` is true, keys under `prefix` are used in place of those under `instead_of`, and must be
    there. Where it is not, they must hold the same bytes, unless the user says which to take.
    """

    prefix: str
    instead_of: str
    flag: str
    option: str
    choices: tuple[str, str]


@dataclass(frozen=True)
class Converter:
    """Side `a` and side `b` of one model, with the tables that lead both ways.

    Releases are side b's; side a has none, unless it is the same format at another release; `origin` is then what the
    checkpoints of both are made from. `advice` gives what a user should know of a config, seen from side a.
    """

    model: str
    a: Format
    b: Format
    tables: tuple[Table, ...]
    configs: ConfigTable
    b_releases: tuple[Release, ...]
    note: str = ""
    advice: Callable[[Config, Config], Sequence[str]] = no_advice
    origin: Format | None = None
    substitutes: tuple[Substitute, ...] = ()

    def format(self, side: Side) -> Format:
        return self.a if side == A else self.b

    @property
    def home(self) -> Format:
        """The format whose configs and tokenizer travel with a checkpoint."""
        return self.origin or self.a

    @property
    def entrances(self) -> tuple[Side, ...]:
        """The sides that a conversion may start from; where both are the same format, one will do."""
        return (A,) if self.a is self.b else (A, B)

    @property
    def a_releases(self) -> tuple[Release, ...]:
        return self.b_releases if self.a is self.b else ()

    def between_releases(self) -> Converter:
        """From any release of side b to any other: the same tensors, and the same config in another spelling."""
        space = self.configs.b
        return Converter(
            model=self.model,
            a=self.b,
            b=self.b,
            tables=tuple(map(reflected, self.tables)),
            configs=Unchanged((), space, space),
            b_releases=self.b_releases,
            note="from one release to another, with its params file",
            origin=self.a,
        )
