"""lm-eval's local-completions against a running server: token ids, echo and log-probabilities.

The harness's own requests over a handful of texts, without a task's data set."""
import sys

from gguf import GGUFReader
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# The model's own tokenizer, out of its file, as the harness takes it.
fields = GGUFReader(sys.argv[2]).fields
texts = fields["tokenizer.ggml.tokens"].contents()
kinds = fields["tokenizer.ggml.token_type"].contents()
merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
inner = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges))
inner.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
inner.decoder = decoders.ByteLevel()
inner.add_special_tokens([AddedToken(text, special=True) for text, kind in zip(texts, kinds) if kind == 3])
eos = texts[fields["tokenizer.ggml.eos_token_id"].contents()]
tokenizer = sys.argv[3]
PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos, pad_token=eos).save_pretrained(tokenizer)
model = LocalCompletionsAPI(base_url=sys.argv[1] + "/v1/completions", model="model", tokenizer=tokenizer,
                            tokenizer_backend="huggingface", max_length=1024, num_concurrent=1, max_retries=1)
pairs = [("The capital of France is", " Paris"), ("The capital of France is", " a banana"), ("One, two, three,", " four")]
requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
answers = model.loglikelihood(requests)
assert answers[0][0] > answers[1][0], answers
assert all(logprob < 0 and isinstance(greedy, bool) for logprob, greedy in answers), answers
until = [Instance("generate_until", {}, ("One, two, three,", {"until": ["\n"], "max_gen_toks": 8}), 0)]
assert model.generate_until(until)[0]
print(f"lm-eval: {answers}")
