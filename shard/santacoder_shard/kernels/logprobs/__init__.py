"""What a row's logits are short of log probabilities; `sampler.token_logprobs` specifies."""
