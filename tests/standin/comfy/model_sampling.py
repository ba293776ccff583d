"""Noise schedules, and what the network's output means at a noise level."""

import torch


def _per_row(sigma, ndim):
    """One sigma per batch row, shaped to multiply a tensor of that many dims."""
    return sigma.view(()) if sigma.nelement() == 1 else sigma.view(sigma.shape[0], *[1] * (ndim - 1))


class EPS:
    """The network sees x / sqrt(sigma^2 + 1) and predicts the noise."""

    def calculate_input(self, sigma, noise):
        return noise / (_per_row(sigma, noise.ndim) ** 2 + self.sigma_data**2) ** 0.5

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - model_output * _per_row(sigma, model_output.ndim)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        sigma = _per_row(sigma, noise.ndim)
        return latent_image + noise * (torch.sqrt(1.0 + sigma**2) if max_denoise else sigma)

    def inverse_noise_scaling(self, sigma, latent):
        return latent


class V_PREDICTION(EPS):
    def calculate_denoised(self, sigma, model_output, model_input):
        sigma, data = _per_row(sigma, model_output.ndim), self.sigma_data
        total = sigma**2 + data**2
        return model_input * data**2 / total - model_output * sigma * data / total**0.5


class X0(EPS):
    def calculate_denoised(self, sigma, model_output, model_input):
        return model_output


class CONST:
    """Rectified flow: x = (1 - sigma) * x0 + sigma * noise, and the network predicts noise - x0."""

    def calculate_input(self, sigma, noise):
        return noise

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - model_output * _per_row(sigma, model_output.ndim)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        sigma = _per_row(sigma, noise.ndim)
        return sigma * noise + (1.0 - sigma) * latent_image

    def inverse_noise_scaling(self, sigma, latent):
        return latent / (1.0 - _per_row(sigma, latent.ndim))


class _Schedule(torch.nn.Module):
    """A table `sigmas`, lowest first."""

    @property
    def sigma_min(self):
        return self.sigmas[0]

    @property
    def sigma_max(self):
        return self.sigmas[-1]


class ModelSamplingDiscrete(_Schedule):
    """The thousand steps of Stable Diffusion 1."""

    def __init__(self, model_config=None):
        super().__init__()
        self.sigma_data = 1.0
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas_bar = torch.cumprod(1.0 - betas, dim=0)
        self.register_buffer("sigmas", ((1.0 - alphas_bar) / alphas_bar).sqrt().float())

    def timestep(self, sigma):
        distances = (sigma.log().to(self.sigmas.device) - self.sigmas.log()[:, None]).abs()
        return distances.argmin(dim=0).view(sigma.shape).to(sigma.device)

    def sigma(self, timestep):
        t = timestep.float().clamp(0, len(self.sigmas) - 1).to(self.sigmas.device)
        low, high = self.sigmas[t.floor().long()].log(), self.sigmas[t.ceil().long()].log()
        return torch.lerp(low, high, t.frac()).exp().to(timestep.device)

    def percent_to_sigma(self, percent):
        if percent <= 0.0:
            return 999999999.9  # above every sigma, so "from the start"
        if percent >= 1.0:
            return 0.0
        return self.sigma(torch.tensor((1.0 - percent) * 999.0)).item()


class ModelSamplingDiscreteFlow(_Schedule):
    """Flow matching with a timestep shift, as in Stable Diffusion 3."""

    def __init__(self, model_config=None):
        super().__init__()
        self.set_parameters()

    def set_parameters(self, shift=1.0, timesteps=1000, multiplier=1000):
        self.shift, self.multiplier = shift, multiplier
        self.register_buffer("sigmas", self.sigma(torch.arange(1, timesteps + 1) / timesteps * multiplier))

    def _shifted(self, t):
        return self.shift * t / (1 + (self.shift - 1) * t)

    def timestep(self, sigma):
        return sigma * self.multiplier

    def sigma(self, timestep):
        return self._shifted(timestep / self.multiplier)

    def percent_to_sigma(self, percent):
        if percent <= 0.0:
            return 1.0
        return 0.0 if percent >= 1.0 else self._shifted(1.0 - percent)
