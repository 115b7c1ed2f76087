"""What a predicted model says of itself: at the top of PDB, and as ModelCIF in mmCIF.

ModelCIF is the dictionary of computed models, https://mmcif.wwpdb.org/dictionaries/mmcif_ma.dic. Of
its categories these have something to say here: the software, the backbone that was given as the
template, the protocol of one step, and the confidence in each side chain.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

import gemmi

SOFTWARE = "qFitLatent"
ADDRESS = "https://mmcif.wwpdb.org/dictionaries/ascii/mmcif_ma.dic"
DICTIONARY_VERSION = "1.4.7"
METHOD = "THEORETICAL MODEL"


@dataclass(frozen=True)
class Origin:
    """Where a predicted model comes from.

    name: of the entry and its data block; content: what was predicted, a sentence; template: the
    file that gave the backbone; version: of this package; facts: what else decides about the
    model, by name; confidence: of a residue (author chain, number with insertion code, name) the
    probability in [0, 1] that its side chain stands where it was written.
    """

    name: str
    content: str
    template: str
    version: str
    facts: Mapping[str, str]
    confidence: Mapping[tuple[str, str, str], float] = field(default_factory=dict)

    @property
    def block_name(self) -> str:
        """The name in letters that a data block may have."""
        plain = (c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in self.name)
        return "".join(plain)

    def title(self, template_title: str) -> str:
        """One line: what this is, and of what."""
        about = f"{self.content} on the backbone of {self.template}"
        return f"{about}: {template_title}" if template_title else about

    def remarks(self) -> list[str]:
        """Lines of REMARK 1."""
        lines = [f"{self.content}, not refined; backbone, cell and symmetry are the input's."]
        lines.append(f"SOFTWARE: {SOFTWARE} {self.version}")
        lines.append(f"TEMPLATE: {self.template}")
        lines += [f"{key.upper().replace('_', ' ')}: {value}" for key, value in self.facts.items()]
        text = [part for line in lines for part in wrap(_ascii(line), 68)]
        return [f"REMARK   1 {line}" for line in text]


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def write_origin(
    block: gemmi.cif.Block, origin: Origin, model: gemmi.Model, entities: Iterable[gemmi.Entity]
) -> None:
    """The categories that say where the model of this block comes from."""
    about = {"dict_name": "mmcif_ma.dic", "dict_version": DICTIONARY_VERSION}
    _pairs(block, "_audit_conform.", about | {"dict_location": ADDRESS})
    write_loop(
        block,
        "_software.",
        ("pdbx_ordinal", "name", "version", "type", "classification", "description"),
        [("1", SOFTWARE, origin.version, "package", "model building", origin.content)],
    )
    write_loop(
        block, "_ma_software_group.", ("ordinal_id", "group_id", "software_id"), [("1", "1", "1")]
    )
    polymers = [e for e in entities if e.entity_type == gemmi.EntityType.Polymer]
    asym = [(name, e) for e in polymers for name in e.subchains]
    templates = [str(i) for i in range(1, len(asym) + 1)]
    target = {e.name: str(len(asym) + i) for i, e in enumerate(polymers, start=1)}
    predicted = str(len(asym) + len(polymers) + 1)
    write_loop(
        block,
        "_ma_data.",
        ("id", "name", "content_type", "content_type_other_details"),
        [
            *((i, origin.template, "template structure", ".") for i in templates),
            *((i, f"entity {name}", "target", ".") for name, i in target.items()),
            (predicted, origin.name, "model coordinates", "."),
        ],
    )
    given = [("1", data) for data in (*templates, *target.values())]
    write_loop(
        block,
        "_ma_data_group.",
        ("ordinal_id", "group_id", "data_id"),
        [(str(i), *row) for i, row in enumerate([*given, ("2", predicted)], start=1)],
    )
    write_loop(
        block,
        "_ma_target_entity.",
        ("entity_id", "data_id", "origin"),
        [(e.name, target[e.name], "designed") for e in polymers],
    )
    write_loop(
        block,
        "_ma_target_entity_instance.",
        ("asym_id", "entity_id", "details"),
        [(name, e.name, "its backbone is the template's") for name, e in asym],
    )
    _identity(block)
    author = {r.subchain: chain.name for chain in model for r in chain}
    write_loop(
        block,
        "_ma_template_details.",
        (
            *("ordinal_id", "template_id", "template_origin", "template_entity_type"),
            *("template_trans_matrix_id", "template_data_id", "target_asym_id"),
            *("template_label_asym_id", "template_label_entity_id", "template_model_num"),
            "template_auth_asym_id",
        ),
        [
            (
                *(i, i, "customized", "polymer", "1", i),
                *(name, name, e.name, "1", author[name]),
            )
            for i, (name, e) in zip(templates, asym, strict=True)
        ],
    )
    write_loop(
        block,
        "_ma_template_customized.",
        ("template_id", "details"),
        [(i, f"backbone of {origin.template}") for i in templates],
    )
    write_loop(
        block,
        "_ma_protocol_step.",
        (
            *("ordinal_id", "protocol_id", "step_id", "method_type", "step_name", "details"),
            *("software_group_id", "input_data_group_id", "output_data_group_id"),
        ),
        [("1", "1", "1", "modeling", origin.content, ".", "1", "1", "2")],
    )
    write_loop(
        block,
        "_ma_model_list.",
        ("ordinal_id", "model_name", "data_id", "model_type", "model_type_other_details"),
        [("1", origin.name, predicted, "Other", origin.content)],
    )
    _confidence(block, origin, model)
    _pairs(block, "_qfitlatent.", {"content": origin.content, **origin.facts})


def _identity(block: gemmi.cif.Block) -> None:
    """The template is where the model is."""
    unit = [(f"rot_matrix[{i}][{j}]", str(float(i == j))) for i in (1, 2, 3) for j in (1, 2, 3)]
    shift = [(f"tr_vector[{i}]", "0.0") for i in (1, 2, 3)]
    names, values = zip(("id", "1"), *unit, *shift, strict=True)
    write_loop(block, "_ma_template_trans_matrix.", names, [values])


def _confidence(block: gemmi.cif.Block, origin: Origin, model: gemmi.Model) -> None:
    if not origin.confidence:
        return
    write_loop(
        block,
        "_ma_qa_metric.",
        ("id", "name", "description", "type", "mode", "software_group_id"),
        [
            (
                "1",
                "side-chain confidence",
                "probability that every chi angle of altloc A, or of the only conformer, is right "
                "within 40 degrees",
                "other",
                "local",
                "1",
            )
        ],
    )
    rows: list[tuple[str, ...]] = []
    for chain in model:
        for residue in chain:
            value = origin.confidence.get((chain.name, str(residue.seqid), residue.name))
            if value is not None and residue.label_seq:
                place = (residue.subchain, str(residue.label_seq), residue.name)
                rows.append((str(len(rows) + 1), "1", *place, "1", f"{value:.3f}"))
    names = ("ordinal_id", "model_id", "label_asym_id", "label_seq_id", "label_comp_id")
    write_loop(block, "_ma_qa_metric_local.", (*names, "metric_id", "metric_value"), rows)


def _pairs(block: gemmi.cif.Block, category: str, values: Mapping[str, str]) -> None:
    block.set_pairs(category, dict(values))


def write_loop(
    block: gemmi.cif.Block, category: str, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """A loop of these rows; "." and "?" are what they mean in mmCIF."""
    if not rows:
        return
    loop = block.init_loop(category, list(names))
    for row in rows:
        loop.add_row([value if value in (".", "?") else gemmi.cif.quote(value) for value in row])
