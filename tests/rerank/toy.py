"""A cross-encoder that learns one toy relation in a second: a passage is relevant when its colour is the query's."""

from pathlib import Path

from rerank.weights.random_model import write_random_model

COLOURS = ("red", "green", "blue", "white")


def query(colour: str) -> str:
    return f"the {colour} one"


def passage(colour: str) -> str:
    return f"a {colour} house"


def train(directory: Path, steps: int = 400) -> Path:
    """Write a trained model into `directory` and return it. AssertionError when it does not learn."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work that threads only wait for each other
    encoder = CrossEncoder(str(write_random_model(directory)), device="cpu", activation_fn=torch.nn.Identity())
    model, embeddings = encoder.model, encoder.model.bert.embeddings
    # Random words must outweigh random places, or the colour is hard to see.
    embeddings.position_embeddings.weight.data.mul_(0.2)
    embeddings.token_type_embeddings.weight.data.mul_(0.5)
    pairs = [(asked, told) for asked in COLOURS for told in COLOURS]
    inputs = encoder.tokenizer(
        [query(asked) for asked, _ in pairs], [passage(t) for _, t in pairs], return_tensors="pt"
    )
    labels = torch.tensor([float(asked == told) for asked, told in pairs])
    learning = [weight for name, weight in model.named_parameters() if "embeddings" not in name]
    optimiser = torch.optim.AdamW(learning, lr=5e-4)
    model.eval()  # no dropout: sixteen examples are to be learnt by heart
    for _ in range(steps):
        optimiser.zero_grad()
        logits = model(**inputs).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()
        optimiser.step()
        if loss.item() < 0.02:
            break
    torch.set_num_threads(threads)
    assert loss.item() < 0.02
    from safetensors.torch import save_file

    weights = {name: weight.contiguous() for name, weight in model.state_dict().items() if "position_ids" not in name}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory
