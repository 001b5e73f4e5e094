"""`RemovableHandle`, what registering a hook returns, under the path that scripts name it by."""

from lazygrad.nn.module_hooks import HookHandle as RemovableHandle

__all__ = ["RemovableHandle"]
