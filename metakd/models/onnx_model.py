"""Any image encoder in an ONNX file, run by ONNX Runtime: a teacher that stays as it is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError, first_line, nearest
from metakd.models.outside import OwnView, dry_run, in_colour, library

__all__ = ["OnnxModel"]

_WHOLE = 7  # onnx.TensorProto.INT64


class OnnxModel(nn.Module):
    """An encoder of colour pictures [n, 3, height, width] float32; nothing of it is trained.

    What is saved of it is the checksum of its file, which has to be there where it is used again.

    Attributes:
        embedding_size: width of its output.
        trainable: False.
        costs: `parameters` and `bytes` of the file.

    Args:
        input_shape: (channels, height, width) of an example; 1 or 3 channels.
        checkpoint: the .onnx file.
        output: name of its output; None: the first one of shape [n, size].
        view: how pictures are shown to it, see `own_input`.

    Raises:
        UserError: ONNX Runtime is not installed; no file, or one that it cannot run.
    """

    trainable = False
    costs: dict[str, float]
    embedding_size: int
    file: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        checkpoint: str | None = None,
        output: str | None = None,
        view: OwnView = OwnView(),
    ) -> None:
        super().__init__()
        self._path = _file(checkpoint)
        self._session: Any = None
        self._output = _output(_session(self._path), output, self._path)
        digest = hashlib.sha256(self._path.read_bytes()).digest()
        self.register_buffer("file", torch.tensor(list(digest), dtype=torch.uint8))
        graph = library("onnx", "onnx").load(str(self._path)).graph
        weights = [one for one in graph.initializer if one.data_type != _WHOLE]  # no shapes
        parameters = sum(math.prod(one.dims) for one in weights)
        self.costs = {"parameters": parameters, "bytes": self._path.stat().st_size}
        self.embedding_size = dry_run(self, input_shape, f"the encoder in {self._path.name}")

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, 1 or 3, height, width]."""
        if self._session is None:
            self._session = _session(self._path)
        given = self._session.get_inputs()[0]
        pixels = in_colour(images.detach()).float().cpu().contiguous().numpy()
        step = given.shape[0] if isinstance(given.shape[0], int) else len(pixels)
        if len(pixels) % step:
            raise ValueError(f"{self._path.name} takes {step} pictures at a time, exactly")
        found = [
            torch.from_numpy(
                self._session.run([self._output], {given.name: pixels[i : i + step]})[0]
            )
            for i in range(0, len(pixels), step)
        ]
        return torch.cat(found).float().to(images.device)

    @classmethod
    def own_input(
        cls,
        given: Preprocessing,
        *,
        checkpoint: str | None = None,
        output: str | None = None,
        view: OwnView = OwnView(),
    ) -> PicturePreprocessing:
        """Return how a teacher of this kind is shown pictures: at the size that its file says.

        Args:
            given: how the data's examples are made.
            checkpoint: see the class.
            output: see the class.
            view: what is to be otherwise; mean and deviation, which no file says.

        Raises:
            UserError: as the class, or mean and deviation are not typed.
        """
        path = _file(checkpoint)
        shape = _session(path).get_inputs()[0].shape
        said = {"image_size": shape[2]} if isinstance(shape[2], int) else {}
        return view.of(given, said, f"the encoder in {path.name}")

    def __deepcopy__(self, memo: Mapping[int, Any]) -> OnnxModel:
        other = type(self).__new__(type(self))
        nn.Module.__init__(other)
        other._path, other._output, other._session = self._path, self._output, self._session
        other.register_buffer("file", self.file.clone())
        other.embedding_size, other.costs = self.embedding_size, self.costs
        other._forward_pre_hooks.update(self._forward_pre_hooks)
        return other.train(self.training)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        saved = state.get(f"{prefix}file")
        if saved is not None and not torch.equal(saved.cpu(), self.file.cpu()):
            raise UserError(f"{self._path} is not the file that this teacher was: name that one")
        super()._load_from_state_dict(state, prefix, *rest)


def _file(checkpoint: str | None) -> Path:
    if checkpoint is None:
        raise UserError("onnx: name the file of the encoder, teacher.checkpoint=FILE.onnx")
    path = Path(checkpoint).expanduser()
    if path.suffix != ".onnx" or not path.is_file():
        raise UserError(f"teacher.checkpoint={checkpoint}: there is no such .onnx file")
    return path


def _session(path: Path) -> Any:
    """Return a session with as many threads as torch has.

    Raises:
        UserError: ONNX Runtime cannot run the file, or its input is no colour picture.
    """
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's errors share no class of their own
        raise UserError(f"{path}: ONNX Runtime cannot run it ({first_line(error)})") from error
    inputs = session.get_inputs()
    shape = list(inputs[0].shape)
    picture = len(shape) == 4 and shape[1] in (3, "channels") and inputs[0].type == "tensor(float)"
    if len(inputs) != 1 or not picture:
        raise UserError(
            f"{path}: expected one input of colour pictures, float32 [n, 3, height, width], not "
            + ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        )
    return session


def _output(session: Any, wanted: str | None, path: Path) -> str:
    found = {one.name: one.shape for one in session.get_outputs()}
    if wanted is not None and wanted not in found:
        raise UserError(f"{path} has no output '{wanted}'." + nearest(wanted, found))
    flat = [name for name, shape in found.items() if len(shape) == 2]
    if wanted is None and not flat:
        raise UserError(
            f"{path}: none of its outputs ({', '.join(found)}) has the shape [n, size]; export the "
            "encoder with its pooling"
        )
    return wanted or flat[0]
