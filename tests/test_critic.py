"""The critic that makes the decoder's mel sharp: who learns from what, and what padding may not touch."""

import torch

from slmlab.language.text import alphabet_of
from slmlab.models.blocks import standardise
from slmlab.models.critic import Critic, CriticConfig, Sharpening, sharpening_loss
from slmlab.models.decoder import DecoderConfig, FlowDecoder
from slmlab.models.tokenizer import SpeechTokenizer, TokenizerConfig


def sharpening() -> Sharpening:
    torch.manual_seed(0)
    tokenizer = SpeechTokenizer(TokenizerConfig(alphabet_of(["sw"]), 9, width=32, layers=1))
    decoder = FlowDecoder(DecoderConfig(9, width=16, layers=2))
    torch.nn.init.normal_(decoder.lacking.weight, std=0.1)  # 0 at first: nothing before it would learn
    torch.nn.init.normal_(decoder.modulation.weight, std=0.1)
    return Sharpening(decoder, tokenizer, CriticConfig(channels=2))


def batch(b: int = 2, f: int = 24) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    mel = 2 * torch.randn(b, f, 80, generator=draw) - 5
    return {
        "mel": mel,
        "prior": mel + torch.randn(b, f, 80, generator=draw),
        "digits": torch.randint(-1, 2, (b, f // 2, 8), generator=draw).float(),
        "timbre": torch.randn(b, 9, generator=draw),
        "prosody": torch.randn(b, f, 3, generator=draw),
        "frames": torch.tensor([f, f - 8]),
        "clean": torch.ones(b),
    }


def test_decoder_and_critic_learn_and_the_tokenizer_does_not() -> None:
    model = sharpening()
    loss, parts = sharpening_loss(model, batch())
    loss.backward()
    assert set(parts) == {"mel", "passing", "features", "unlike", "critic"}
    for name, weight in model.named_parameters():
        learns = not name.startswith("tokenizer.")
        assert (weight.grad is not None and bool(weight.grad.abs().sum() > 0)) == learns, name


def test_the_critic_is_not_moved_by_what_the_decoder_wants() -> None:
    """Its gradient is that of telling recorded (1) from decoded (0) alone, as least squares have it."""
    model, speech = sharpening(), batch()
    torch.manual_seed(3)
    sharpening_loss(model, speech)[0].backward()
    ours = [weight.grad.clone() for weight in model.critic.parameters() if weight.grad is not None]
    model.zero_grad()
    torch.manual_seed(3)
    with torch.no_grad():
        decoded = model(speech["digits"], speech["prior"], speech["timbre"], speech["frames"])
    mask = (torch.arange(24)[None, :, None] < speech["frames"][:, None, None]).float()
    real, fake = (
        model.critic(mel, standardise(speech["prior"]), mask)[-1]
        for mel in (standardise(speech["mel"]), decoded)
    )
    frames = mask.sum()
    loss = ((real - 1) ** 2 * mask).mean(-1).sum() / frames + (fake**2 * mask).mean(-1).sum() / frames
    loss.backward()
    for got, weight in zip(ours, model.critic.parameters(), strict=True):
        torch.testing.assert_close(got, weight.grad)


def test_padding_reaches_no_real_frame_of_the_critic() -> None:
    critic, speech = Critic(CriticConfig(channels=2)), batch()
    mel, prior, mask = speech["mel"][:1, :16], speech["prior"][:1, :16], torch.ones(1, 16, 1)
    alone = critic(mel, prior, mask)
    longer = [torch.cat([x, 9 * torch.ones(1, 8, 80)], 1) for x in (mel, prior)]
    padded = critic(*longer, torch.cat([mask, torch.zeros(1, 8, 1)], 1))
    for got, wanted in zip(padded, alone, strict=True):
        torch.testing.assert_close(got[:, :16], wanted)


def test_a_few_steps_bring_decoded_mels_nearer() -> None:
    model, speech = sharpening().train(), batch()
    learning = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    mels = []
    for step in range(60):
        torch.manual_seed(step)
        loss, parts = sharpening_loss(model, speech)
        learning.zero_grad()
        loss.backward()
        learning.step()
        mels.append(parts["mel"])
    assert mels[-1] < 0.8 * mels[0]
