"""Wrapper chains: per wrapper type a dict of keys, per key a list of functions; the first added is the outermost."""


class WrappersMP:
    PREPARE_SAMPLING = "prepare_sampling"
    OUTER_SAMPLE = "outer_sample"
    SAMPLER_SAMPLE = "sampler_sample"
    PREDICT_NOISE = "predict_noise"
    CALC_COND_BATCH = "calc_cond_batch"
    APPLY_MODEL = "apply_model"
    DIFFUSION_MODEL = "diffusion_model"


def add_wrapper_with_key(wrapper_type, key, wrapper, transformer_options, is_model_options=False):
    if is_model_options:
        transformer_options = transformer_options.setdefault("transformer_options", {})
    by_type = transformer_options.setdefault("wrappers", {})
    by_type.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)


def _wrappers_by_key(wrapper_type, options, is_model_options):
    if is_model_options:
        options = options.get("transformer_options", {})
    return options.get("wrappers", {}).get(wrapper_type, {})


def get_wrappers_with_key(wrapper_type, key, transformer_options, is_model_options=False):
    return list(_wrappers_by_key(wrapper_type, transformer_options, is_model_options).get(key, []))


def get_all_wrappers(wrapper_type, transformer_options, is_model_options=False):
    by_key = _wrappers_by_key(wrapper_type, transformer_options, is_model_options)
    return [wrapper for wrappers in by_key.values() for wrapper in wrappers]


class WrapperExecutor:
    """What a wrapper gets as its first argument: calling it runs the next wrapper, or in the end the function."""

    def __init__(self, original, class_obj, wrappers, idx=0):
        self.original, self.class_obj, self.wrappers, self.idx = original, class_obj, list(wrappers), idx

    @classmethod
    def new_executor(cls, original, wrappers, idx=0):
        return cls(original, None, wrappers, idx)

    @classmethod
    def new_class_executor(cls, original, class_obj, wrappers, idx=0):
        return cls(original, class_obj, wrappers, idx)

    def execute(self, *args, **kwargs):
        if self.idx < len(self.wrappers):
            return self.wrappers[self.idx](self, *args, **kwargs)
        return self.original(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        following = WrapperExecutor(self.original, self.class_obj, self.wrappers, self.idx + 1)
        return following.execute(*args, **kwargs)


def copy_nested_dicts(input_dict):
    """Fresh dicts and lists at every dict level; everything else stays the same object."""

    def fresh(value):
        if isinstance(value, dict):
            return copy_nested_dicts(value)
        return list(value) if isinstance(value, list) else value

    return {key: fresh(value) for key, value in input_dict.items()}


def merge_nested_dicts(dict1, dict2, copy_dict1=True):
    """Lay dict2 over dict1: dicts merge, lists are extended, all else is overwritten."""
    merged = copy_nested_dicts(dict1) if copy_dict1 else dict1
    for key, value in dict2.items():
        if isinstance(value, dict):
            merged[key] = merge_nested_dicts(merged.get(key, {}), value)
        elif isinstance(value, list):
            merged[key] = [*merged.get(key, []), *value]
        else:
            merged[key] = value
    return merged
