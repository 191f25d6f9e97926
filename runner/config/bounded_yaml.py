"""Reads YAML from elsewhere: a file whose aliases make more of it than a configuration can have is refused."""

from typing import Any

import yaml
from yaml.constructor import ConstructorError

_MAX_NODES = 100_000
"""Values, keys and sections, with what each alias stands for: a configuration has a few hundred."""


class AliasError(yaml.YAMLError):
    """The aliases of a document stand for too much."""


def load_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML document.

    Raises:
        AliasError: it contains itself, or has too many nodes once its aliases are written out.
        yaml.YAMLError: it is no YAML.
        RecursionError: it is nested too deeply.
    """
    loader = yaml.SafeLoader(text)
    try:
        document = loader.get_single_node()
        if document is None:
            return None
        if (nodes := _count_nodes(document, {})) > _MAX_NODES:
            raise AliasError(f"its aliases stand for {nodes:.1g} values: write them out, at most {_MAX_NODES:,}")
        return loader.construct_document(document)
    except (AttributeError, IndexError, KeyError) as error:  # PyYAML's own, of a scalar whose tag does not fit
        raise ConstructorError(problem=f"a value does not fit its tag: {error}") from error
    finally:
        loader.dispose()


def _count_nodes(node: yaml.Node, counted: dict[yaml.Node, int]) -> int:
    """Return how many nodes a node stands for, aliases written out; each node is visited once.

    Args:
        node: the node.
        counted: the nodes counted before; 0 for those whose members are being counted.
    """
    if node not in counted:
        counted[node] = 0
        members = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = (part for member in members for part in (member if isinstance(member, tuple) else (member,)))
        counted[node] = 1 + sum(_count_nodes(part, counted) for part in pairs)
    if not counted[node]:
        raise AliasError("an alias stands for a section that contains the alias: remove it")
    return counted[node]
