"""The weights of new tokens: each row of the embedding and of the head is the mean of the rows of its old pieces.

The mean keeps what the model made of the pieces, where a random row would be noise to every layer above. Where head and
embedding are one matrix there is one mean; a model with rows to spare (padding) keeps its size as long as they suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def means(matrix_VD: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """(N, D): the mean of the rows of each new token's pieces."""
    import torch

    return torch.stack([matrix_VD[list(ids)].mean(0) for ids in pieces])


def grow(model: nn.Module, first: int, pieces: Sequence[Sequence[int]]) -> None:
    """Gives the tokens `first`, `first` + 1, … their rows; `pieces` are ids of tokens that were there."""
    import torch

    if not pieces:
        return
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = is_tied(model)
    matrices = [embedding.weight] + ([] if tied else [head.weight])
    rows = [means(matrix.detach(), pieces) for matrix in matrices]
    bias = None if head is None or getattr(head, "bias", None) is None else means(head.bias.detach()[:, None], pieces)
    if first + len(pieces) > embedding.weight.shape[0]:
        model.resize_token_embeddings(first + len(pieces), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[first : first + len(pieces)] = rows[0]
        if not tied:
            model.get_output_embeddings().weight[first : first + len(pieces)] = rows[1]
        if bias is not None:
            model.get_output_embeddings().bias[first : first + len(pieces)] = bias[:, 0]


def is_tied(model: nn.Module) -> bool:
    """Whether embedding and head are one matrix."""
    head = model.get_output_embeddings()
    return head is None or head.weight is model.get_input_embeddings().weight
