"""How an op becomes known to PyTorch: one opaque node for torch.compile, at the least host cost.

Shared by the five wheels; not public: it may change in any release.

An op is a ``torch.library`` definition with a fake, called inside an ``autograd.Function`` whose
forward takes ``ctx``. docs/decisions/0001-op-registration.md has the measurement behind this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

import torch

from fla.utils.plans import Planned, is_recording, is_watched

_LIBRARY = torch.library.Library("fla", "FRAGMENT")


def register_op(
    name: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    algorithm: Callable[..., Any] | None = None,
    launch: str | None = None,
    mutates: Sequence[str] = (),
    options: type | None = None,
    varying: Sequence[str] = (),
) -> Callable[..., Any]:
    """Define ``fla::<name>`` and return the callable to use for it.

    With ``launch``, ``run`` is a declaration; with ``algorithm`` too its arguments name the backend. Each of the two
    gets those of the arguments that it names. Of several results those that it leaves out or has as None are empty.

    Args:
        name: op name, ``<family>_<form>_fwd`` or ``..._bwd``. It is fixed: exported programs contain it.
        run: what runs, on every device; autograd and autocast are off inside, and the current GPU is the one that the
            tensors lie on: kernels are launched there. The schema is inferred from its annotations.
        fake: from those of the arguments that it names, empty tensors of the right shape, dtype and device.
        algorithm: what runs where the backend is not triton; None where there is no other.
        launch: ``"module:function"`` that runs on the triton backend; loaded when it is first called.
        mutates: names of the arguments that are written to.
        options: the named tuple whose fields ``run`` takes as ``*options``.
        varying: names of integers that ``launch`` hands to kernels and does not look at.
    """
    _LIBRARY.define(name + _schema(run, mutates, options), tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.fla, name).default
    names = [argument.name for argument in op._schema.arguments]
    implementation: Callable[..., Any] = run
    call: Callable[..., Any] = op
    backend = names.index("backend") if "backend" in names else None
    if launch is not None:
        implementation = _by_backend(run, algorithm, launch)
    if "cu_seqlens" in names:
        implementation = _with_contiguous(implementation, names.index("cu_seqlens"))
    implementation = _in_its_place(implementation)
    if launch is not None or backend is not None:
        implementation, call = _planned(op, implementation, backend, [names.index(name) for name in varying])
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fla::{name}", _by_name(fake, names), lib=_LIBRARY)
    return call


def registered(call: Callable[..., Any]) -> Any:
    """The op of ``torch.ops.fla`` behind what :func:`register_op` returned."""
    return getattr(call, "op", call)


def _schema(run: Callable[..., Any], mutates: Sequence[str], options: type | None) -> str:
    hints, parameters = get_type_hints(run), []
    for parameter in signature(run).parameters.values():
        if parameter.kind is Parameter.VAR_POSITIONAL and options is not None:
            fields = get_type_hints(options).items()
            parameters += [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for n, kind in fields]
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))

    def described() -> None: ...

    returned = None if hints["return"] is type(None) else hints["return"]
    described.__signature__ = Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    return torch.library.infer_schema(described, mutates_args=tuple(mutates))


def _by_backend(declared: Callable[..., Any], algorithm: Callable[..., Any] | None, launch: str) -> Callable[..., Any]:
    names = list(signature(declared).parameters)
    place = names.index("backend") if algorithm is not None else None
    known: dict[Any, tuple[Callable[..., Any], list[int]]] = {}

    def find(backend: Any) -> tuple[Callable[..., Any], list[int]]:
        module, _, attribute = launch.partition(":")
        other = algorithm is not None and backend != "triton"
        function: Any = algorithm if other else getattr(import_module(module), attribute)
        known[backend] = function, [names.index(name) for name in signature(function).parameters]
        return known[backend]

    def run(*args: Any) -> Any:
        backend = None if place is None else args[place]
        function, places = known.get(backend) or find(backend)
        return function(*[args[i] for i in places])

    return run


def _planned(
    op: Any, function: Callable[..., Any], backend: int | None, varying: Sequence[int]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What is registered, and what calls it: past PyTorch's dispatcher where nobody watches.

    Args:
        op: takes tensors and returns tensors.
        function: may leave out results at the end, or have None for them.
        backend: the place of the argument that names it; None where all calls launch kernels.
        varying: places of integers that kernels alone look at.
    """
    arguments = op._schema.arguments
    tensors = [i for i, argument in enumerate(arguments) if "Tensor" in str(argument.type)]
    required = [i for i in tensors if isinstance(arguments[i].type, torch.TensorType)]
    returned = op._schema.returns
    one, many = len(returned) <= 1, len(returned) == 1 and not isinstance(returned[0].type, torch.TensorType)

    numbers = [i for i, argument in enumerate(arguments) if isinstance(argument.type, torch.FloatType)]

    def filled(args: Sequence[Any]) -> Sequence[Any]:
        """A forward pass that was called past the dispatcher has handed on None."""
        if any(args[i] is None for i in required):
            args = [args[0].new_empty(0) if i in required and x is None else x for i, x in enumerate(args)]
        return args

    def run(*args: Any) -> Any:
        given = [*filled(args)]
        for i in numbers:
            given[i] = float(given[i])  # kernels are specialised to integers
        found = function(*given)
        return found if one else (*found, *(None,) * (len(returned) - len(found)))

    plans = Planned(run, len(arguments), tensors, varying)

    def implementation(*args: Any) -> Any:
        found = plans(run, *args) if backend is None or args[backend] == "triton" else run(*args)
        if many or not one:
            found = [args[0].new_empty(0) if x is None else x for x in found]
        return found if one else tuple(found)

    def dispatch(*args: Any) -> Any:
        return op(*filled(args))

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling() or (backend is not None and args[backend] != "triton"):
            return op(*args)
        if is_watched():
            return run(*args) if is_recording() else dispatch(*args)
        return plans(dispatch, *args)

    call.__name__, call.op = op._schema.name.removeprefix("fla::"), op  # type: ignore[attr-defined]
    return implementation, call


def fake_gradients(run: Callable[..., Any], like_state: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """The fake of a backward pass ``(*operands, initial_state, ...) -> (*gradients, dinitial_state)``.

    Args:
        run: the backward pass. A gradient is like its operand, empty where there is none.
        like_state: from those of the arguments that it names, an empty tensor like the gradient of the initial state.
    """
    names = list(signature(run).parameters)
    operands, state = names.index("initial_state"), _by_name(like_state, names)
    make = list if get_type_hints(run)["return"] == list[torch.Tensor] else tuple

    def fake(*args: Any) -> Any:
        gradients = [args[0].new_empty(0) if x is None else x.new_empty(x.shape) for x in args[:operands]]
        return make([*gradients, state(*args)])

    return fake


def _by_name(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """``function`` called with all arguments, of which it gets those that it names."""
    parameters = signature(function).parameters.values()
    if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
        return function
    wanted = [parameter.name for parameter in parameters if parameter.name in names]

    def call(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args)), **kwargs}
        return function(**{name: given[name] for name in wanted})

    return call


def _with_contiguous(implementation: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Kernels read boundaries one after the other."""

    @wraps(implementation)
    def run(*args: Any) -> Any:
        tensor = args[place]
        if tensor is not None and not tensor.is_contiguous():
            args = (*args[:place], tensor.contiguous(), *args[place + 1 :])
        return implementation(*args)

    return run


def _in_its_place(implementation: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(implementation)
    def run(*args: Any) -> Any:
        device = next(a.device for a in args if isinstance(a, torch.Tensor))
        if device.type == "cuda" and device.index != torch._C._cuda_getDevice():
            with torch.cuda.device(device):
                return run(*args)
        if not torch.is_autocast_enabled(device.type):
            return implementation(*args)
        with torch.autocast(device.type, enabled=False):
            return implementation(*args)

    return run
