"""The PyTorch side of the VQGAN's training step, as taming-transformers trains."""

from __future__ import annotations

import torch
from torch.nn import functional as F


class VQGANTraining:
    """taming's training step: the generator's update, then the discriminator's.

    Args:
      model: `VQGAN`.
      judge: `discriminator()`, or None: no adversarial term.
      perceptual: a distance of pictures, or None: no perceptual term.
      rate: learning rate of both Adams.
      weight: of the adversarial term, before the adaptive factor.
      compiled: through `torch.compile`. The last convolution stays outside, so that
        the gradient at its weight does not run the whole compiled backward pass.
    """

    def __init__(
        self, model, judge, perceptual, *, rate=1e-4, weight=0.8, compiled=False
    ):
        self.model, self.weight = model, weight
        wrap = torch.compile if compiled else lambda module: module
        self.run, self.judge, self.perceptual = (
            module and wrap(module) for module in (model, judge, perceptual)
        )
        if perceptual is not None:
            perceptual.requires_grad_(False)
        self.judged = [] if judge is None else list(judge.parameters())
        self.optimizers = [
            torch.optim.Adam(parameters, rate, betas=(0.5, 0.9), fused=True)
            for parameters in (model.parameters(), self.judged)
            if parameters
        ]

    def reconstruct(self, image):
        """[B,3,H,W] -> (reconstruction [B,3,H,W], codebook loss)."""
        features, z_e, z_q = self.run(image)
        codes = F.mse_loss(z_q, z_e.detach()) + 0.25 * F.mse_loss(z_e, z_q.detach())
        return self.model.decoder.pixels(features).float(), codes

    def generator_step(self, image) -> dict[str, torch.Tensor]:
        for parameter in self.judged:
            parameter.requires_grad_(False)
        fake, codes = self.reconstruct(image)
        parts = {"l1": F.l1_loss(fake, image), "codebook": codes}
        nll = parts["l1"]
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(fake, image).mean()
            nll = nll + parts["perceptual"]
        loss = nll + codes
        if self.judge is not None:
            parts["adversarial"] = -self.judge(fake).mean()
            parts["adaptive_weight"] = self.adaptive_weight(nll, parts["adversarial"])
            loss = loss + parts["adaptive_weight"] * parts["adversarial"]
        self.update(self.optimizers[0], loss)
        return parts

    def adaptive_weight(self, nll, adversarial):
        """Ratio of the two gradients' norms at the decoder's last convolution."""
        last = self.model.decoder.conv_out.weight
        nll_norm, adversarial_norm = (
            torch.autograd.grad(term, last, retain_graph=True)[0].norm()
            for term in (nll, adversarial)
        )
        ratio = nll_norm / (adversarial_norm + 1e-4)
        return self.weight * ratio.clamp(0.0, 1e4).detach()

    def discriminator_step(self, image) -> dict[str, torch.Tensor]:
        """Hinge loss on a fresh reconstruction, by the generator just updated."""
        for parameter in self.judged:
            parameter.requires_grad_(True)
        with torch.no_grad():
            fake, _ = self.reconstruct(image)
        real_term = F.relu(1.0 - self.judge(image)).mean()
        loss = 0.5 * (real_term + F.relu(1.0 + self.judge(fake)).mean())
        self.update(self.optimizers[1], loss)
        return {"discriminator/loss": loss}

    def update(self, optimizer, loss) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def step(self, image) -> dict[str, torch.Tensor]:
        """One training step on [B,3,H,W]; the parts of its losses."""
        parts = self.generator_step(image)
        if self.judge is not None:
            parts |= self.discriminator_step(image)
        return parts
