"""A model with the patches of one branch of the graph; cloning is how nodes stay out of each other's way."""

import copy
import math

import torch

from comfy.patcher_extension import copy_nested_dicts

create_model_options_clone = copy_nested_dicts


def set_model_options_patch_replace(model_options, patch, name, block_name, number, transformer_index=None):
    """Put `patch` in one slot; the dicts on the way are copied, because a caller may have passed a shallow copy."""
    block = (block_name, number) if transformer_index is None else (block_name, number, transformer_index)
    to = dict(model_options["transformer_options"])
    replace = to["patches_replace"] = dict(to.get("patches_replace", {}))
    replace[name] = {**replace.get(name, {}), block: patch}
    model_options["transformer_options"] = to
    return model_options


def _append_option(model_options, name, function, disable_cfg1_optimization):
    model_options[name] = [*model_options.get(name, []), function]
    if disable_cfg1_optimization:
        model_options["disable_cfg1_optimization"] = True
    return model_options


def set_model_options_post_cfg_function(model_options, post_cfg_function, disable_cfg1_optimization=False):
    return _append_option(model_options, "sampler_post_cfg_function", post_cfg_function, disable_cfg1_optimization)


def set_model_options_pre_cfg_function(model_options, pre_cfg_function, disable_cfg1_optimization=False):
    return _append_option(model_options, "sampler_pre_cfg_function", pre_cfg_function, disable_cfg1_optimization)


def _owner(model, name):
    """The object that holds the last part of a dotted name, and that part."""
    path, _, last = name.rpartition(".")
    for part in filter(None, path.split(".")):
        model = getattr(model, part)
    return model, last


class ModelPatcher:
    free_memory = math.inf  # bytes; tests lower it (on the class, so that every clone follows) to split batches

    def __init__(self, model, load_device=torch.device("cpu"), offload_device=torch.device("cpu")):
        self.model = model
        self.load_device, self.offload_device = load_device, offload_device
        self.model_options = {"transformer_options": {}}
        self.wrappers = {}
        self.object_patches = {}
        self._unpatched_objects = {}
        self.parent = None

    def clone(self):
        n = type(self)(self.model, self.load_device, self.offload_device)
        n.model_options = copy.deepcopy(self.model_options)  # 0.3.64: bound methods in it get a copied self
        n.wrappers = copy_nested_dicts(self.wrappers)  # not deep: a bound method here keeps its self
        n.object_patches = dict(self.object_patches)
        n._unpatched_objects = self._unpatched_objects
        n.parent = self
        return n

    def is_clone(self, other):
        return getattr(other, "model", None) is self.model

    def get_free_memory(self, device):
        return self.free_memory

    def model_dtype(self):
        return self.model.get_dtype()

    # Single slots: the last writer wins.
    def set_model_sampler_cfg_function(self, sampler_cfg_function, disable_cfg1_optimization=False):
        self.model_options["sampler_cfg_function"] = sampler_cfg_function
        if disable_cfg1_optimization:
            self.model_options["disable_cfg1_optimization"] = True

    def set_model_sampler_calc_cond_batch_function(self, sampler_calc_cond_batch_function):
        self.model_options["sampler_calc_cond_batch_function"] = sampler_calc_cond_batch_function

    def set_model_unet_function_wrapper(self, unet_wrapper_function):
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_denoise_mask_function(self, denoise_mask_function):
        self.model_options["denoise_mask_function"] = denoise_mask_function

    # Lists: every function runs, in the order in which nodes added them.
    def set_model_sampler_post_cfg_function(self, post_cfg_function, disable_cfg1_optimization=False):
        set_model_options_post_cfg_function(self.model_options, post_cfg_function, disable_cfg1_optimization)

    def set_model_sampler_pre_cfg_function(self, pre_cfg_function, disable_cfg1_optimization=False):
        set_model_options_pre_cfg_function(self.model_options, pre_cfg_function, disable_cfg1_optimization)

    def set_model_patch(self, patch, name):
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches[name] = [*patches.get(name, []), patch]

    def set_model_attn1_patch(self, patch):
        self.set_model_patch(patch, "attn1_patch")

    def set_model_attn2_patch(self, patch):
        self.set_model_patch(patch, "attn2_patch")

    def set_model_attn1_output_patch(self, patch):
        self.set_model_patch(patch, "attn1_output_patch")

    def set_model_attn2_output_patch(self, patch):
        self.set_model_patch(patch, "attn2_output_patch")

    def set_model_input_block_patch(self, patch):
        self.set_model_patch(patch, "input_block_patch")

    def set_model_output_block_patch(self, patch):
        self.set_model_patch(patch, "output_block_patch")

    # One slot per block: the last writer of a block wins.
    def set_model_attn1_replace(self, patch, block_name, number, transformer_index=None):
        set_model_options_patch_replace(self.model_options, patch, "attn1", block_name, number, transformer_index)

    def set_model_attn2_replace(self, patch, block_name, number, transformer_index=None):
        set_model_options_patch_replace(self.model_options, patch, "attn2", block_name, number, transformer_index)

    def add_wrapper_with_key(self, wrapper_type, key, wrapper):
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def add_wrapper(self, wrapper_type, wrapper):
        self.add_wrapper_with_key(wrapper_type, None, wrapper)

    def get_wrappers(self, wrapper_type, key):
        return self.wrappers.get(wrapper_type, {}).get(key, [])

    def remove_wrappers_with_key(self, wrapper_type, key):
        self.wrappers.get(wrapper_type, {}).pop(key, None)

    def add_object_patch(self, name, obj):
        self.object_patches[name] = obj

    def get_model_object(self, name):
        for patched in (self.object_patches, self._unpatched_objects):
            if name in patched:
                return patched[name]
        return getattr(*_owner(self.model, name))

    def pre_run(self):
        """Bind the model to this patcher for one run; the backup is shared by all clones, as they share the model."""
        for name, obj in self.object_patches.items():
            owner, last = _owner(self.model, name)
            self._unpatched_objects.setdefault(name, getattr(owner, last))
            setattr(owner, last, obj)
        self.model.to(self.load_device)
        self.model.current_patcher = self

    def cleanup(self):
        self.model.current_patcher = None
        for name, obj in self._unpatched_objects.items():
            owner, last = _owner(self.model, name)
            setattr(owner, last, obj)
        self._unpatched_objects.clear()
