"""What people get wrong on real files: each mistake is one line that says what is wrong, exit code 2, and nothing written."""

import json
import shlex
import shutil
import sys
from importlib.util import find_spec

import datasets
import pytest
from transformers.utils import logging

from conftest import tiny_llama
from manypaths.cli.main import main

PAIRS = '{"prompt": "one is", "completion": " two", "answer": "7"}\n' * 4
USER, REPLY = '{"role": "user", "content": "one"}', '{"role": "assistant", "content": "two"}'
TALK = f'{{"messages": [{USER}, {REPLY}]}}\n'
FILES = {
    "chats.jsonl": PAIRS,
    "talk.jsonl": TALK * 2,
    "prompts.jsonl": '{"prompt": "one is"}\n' * 2,
    # data that is not what it should be
    "table.csv": "prompt,completion\none,two\n",
    "notes.txt": "one two\n",
    "empty.jsonl": "",
    "blank.jsonl": "\n\n",
    "broken.jsonl": PAIRS + '{"prompt": "one" "completion": "two"}\n',
    "broken.json": '[\n{"prompt": "one", "completion": "two"},\n]\n',
    "single.jsonl": PAIRS + "{'prompt': 'one', 'completion': 'two'}\n",
    "wrapped.json": '{"data": [{"prompt": "one", "completion": "two"}]}',
    "lacking.jsonl": PAIRS + '{"prompt": "one is"}\n',
    "null.jsonl": TALK + f'{{"messages": [{USER}, {{"role": "assistant", "content": null}}]}}\n',
    "number.jsonl": TALK + f'{{"messages": [{USER}, {{"role": "assistant", "content": 7}}]}}\n',
    "completion.jsonl": PAIRS + '{"prompt": "one", "completion": 7}\n',
    "role.jsonl": TALK + f'{{"messages": [{USER}, {{"role": "assitant", "content": "two"}}]}}\n',
    "human.jsonl": '{"messages": [{"role": "human", "content": "one"}, {"role": "gpt", "content": "two"}]}\n',
    "roleless.jsonl": '{"messages": [{"content": "one"}, {"content": "two"}]}\n',
    "users.jsonl": f'{{"messages": [{USER}]}}\n' * 2,
    "string.jsonl": json.dumps({"messages": f"[{USER}, {REPLY}]"}) + "\n",
    "mixed.jsonl": PAIRS + f'{{"prompt": [{USER}], "completion": [{REPLY}]}}\n',
    "halves.jsonl": f'{{"prompt": "one", "completion": [{REPLY}]}}\n' * 2,
    "question.jsonl": '{"question": "one", "reply": "two"}\n',
    "list.jsonl": "[1, 2]\n",
    "goldless.jsonl": '{"prompt": "one is", "answer": "7"}\n{"prompt": "two is", "answer": null}\n',
    "ids.jsonl": '{"input_ids": [3, 999999]}\n',
    "untrained.jsonl": '{"input_ids": [3, 4], "labels": [-100, -100]}\n',
    "windows.jsonl": PAIRS,  # written as UTF-16
    "data.parquet": PAIRS,
    "sharegpt.jsonl": '{"conversations": [{"from": "human", "text": "one"}]}\n',
    # recipes
    "tabs.yaml": "learning_rate: 1e-5\n\tmax_steps: 2\n",
    "list.yaml": "- learning_rate: 1e-5\n",
    "typo.yaml": "learning_rat: 1e-5\n",
    "alias.yaml": "data: chats.jsonl\ndataset_name: chats.jsonl\n",
    "repeated.yaml": "learning_rate: 1e-5\nmax_steps: 2\nlearning_rate: 1e-4\n",
    "nested.yaml": "training:\n  learning_rate: 1e-5\n",
    "colon.yaml": "learning_rate:1e-5\n",
    # own functions
    "mistaken.py": "def loss(logits, labels):\n    return logits\n\nrate = 3\n\ndef mean(logprob):\n    return -logprob.mean()"
    "\n\ndef fails(logprob):\n    return logprob.nope\n",
    "mistaken_syntax.py": "def loss(logprob)\n    return -logprob\n",
    "mistaken_reward.py": "def few(completions, **columns):\n    return [1.0]\n\ndef none(completions, **columns):\n    pass\n\n"
    "def narrow(completions):\n    return [1.0] * len(completions)\n",
    "broken.jinja": "{% for m in messages %}{{ m['content'] }}",
    "answers.jinja": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "strict.jinja": "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{{ m['content'] }}{% endfor %}",
    "system.jsonl": f'{{"messages": [{{"role": "system", "content": "be"}}, {USER}, {REPLY}]}}\n',
    # benchmarks
    "good.jsonl": '{"id": "a", "problem": "one", "answer": "1"}\n',
    "good.yaml": "name: good\nsource: good.jsonl\n",
    "sourceless.yaml": "name: mine\n",
    "nowhere.yaml": "name: mine\nsource: nowhere.jsonl\n",
    "grader.yaml": "name: mine\nsource: good.jsonl\ngrader: mth\n",
    "column.yaml": "name: mine\nsource: good.jsonl\nproblem: question\n",
    "key.yaml": "name: mine\nsource: good.jsonl\nanswr: gold\n",
    "template.yaml": "name: mine\nsource: good.jsonl\nprompt: '{problem} {hint}'\n",
    "same.jsonl": '{"id": "a", "problem": "one", "answer": "1"}\n' * 2,
    "same.yaml": "name: mine\nsource: same.jsonl\n",
    "poems.jsonl": '{"theme": "rain"}\n',
    "texts.jsonl": '{"id": "b", "text": "one"}\n',
    "noid.jsonl": '{"text": "one"}\n',
}
MODEL = "model_name_or_path: start\n"
METHODS = "methods:\n  CE: {objective: nll}\n"
REST = "sft: {dataset_name: chats.jsonl, max_steps: 1}\neval: {benchmarks: [good.yaml]}\n"
FILES |= {
    "x_methods.yaml": MODEL + REST,
    "x_list.yaml": MODEL + "methods: [nll, sed]\n" + REST,
    "x_words.yaml": MODEL + "methods: {CE: nll, SED: sed}\n" + REST,
    "x_number.yaml": MODEL + "methods: {CE: {objective: nll}, SED: 0.3}\n" + REST,
    "x_step.yaml": MODEL + "methods: {CE: {sft: nll}}\n" + REST,
    "x_key.yaml": MODEL + METHODS + REST + "metods: 2\n",
    "x_control.yaml": MODEL + METHODS + REST + "controls: {no_stf: true}\n",
    "x_controls.yaml": MODEL + METHODS + REST + "controls: false\n",
    "x_fraction.yaml": MODEL + METHODS + REST + "controls: {weight_averaging: {weight: 50}}\n",
    "x_seeds.yaml": MODEL + METHODS + REST + "seeds: three\n",
    "x_baseline.yaml": MODEL + METHODS + REST + "baseline: SFT\n",
    "x_workers.yaml": MODEL + METHODS + REST + "compute: {workers: 0}\n",
    "x_objective.yaml": MODEL + "methods: {CE: {objective: nll}, SED: {objective: sde}}\n" + REST,
    "x_option.yaml": MODEL + "methods: {CE: {objective: nll}, SED: {objective: sed, treshold: 0.1}}\n" + REST,
    "x_data.yaml": MODEL + METHODS + REST.replace("chats", "chat"),
    "x_reward.yaml": MODEL + METHODS + REST + "grpo: {max_steps: 1, dataset_name: chats.jsonl}\n",
}

SFT = "sft --model start --data chats.jsonl --output_dir out --max_steps 2 --per_device_train_batch_size 2 --report_to none"
GRPO = (
    "grpo --model start --data chats.jsonl --reward math --output_dir out --max_steps 1 --num_generations 4 "
    "--per_device_train_batch_size 4 --max_completion_length 4 --report_to none"
)
EVAL = "eval --model start --output_dir out --max_new_tokens 4"
MODELS = [
    (f"{SFT} --model strat", "'strat' is not a folder here and not a model of the hub"),
    (f"{SFT} --model ./strat", "There is no model in ./strat"),
    (f"{SFT} --model Qwen/Qwen2.5-0.5B-Instrct", "not a model of the hub"),
    (f"{SFT} --model no_config", "There is no model in no_config: no config.json"),
    (f"{SFT} --model no_tokenizer", "Make sure the repository contains the files"),
    (f"{SFT} --model no_weights", "no file named model.safetensors"),
    (f"{SFT} --model cut", "cut/model.safetensors is cut off or damaged"),
    (f"{SFT} --model bad_config", "bad_config/config.json' is not a valid JSON file"),
    (f"{SFT} --model unknown", "model type `lama`"),
    (f"{SFT} --model large", "the model's embedding only 85 rows"),
    (f"{SFT} --model adapter", "adapter is an adapter of ./gone/base, which cannot be found from here"),
    (f"{SFT} --dtype float23", "choose from 'auto', 'bfloat16'"),
    (f"{SFT} --attn_implementation flash_attention_2", "FlashAttention2 doesn't seem to be installed"),
    (f"{SFT} --load_in_4bit true", "attach trainable adapters" if find_spec("bitsandbytes") else "pip install -U bitsandbytes"),
    ("sft --data chats.jsonl", "--model_name_or_path is missing"),
]
DATA = [
    ("sft --model start", "--dataset_name is missing"),
    (f"{SFT} --data chat.jsonl", "No data file at chat.jsonl (looked in "),
    (f"{SFT} --data table.csv", "Cannot read table.csv: data files are .json, .jsonl, .parquet"),
    (f"{SFT} --data notes.txt", "this one is .txt"),
    (f"{SFT} --data empty.jsonl", "empty.jsonl is empty; it needs at least one row"),
    (f"{SFT} --data blank.jsonl", "blank.jsonl is empty"),
    (f"{SFT} --data broken.jsonl", "broken.jsonl, line 5: broken JSON"),
    (f"{SFT} --data broken.json", "broken.json, line 3: broken JSON"),
    (f"{SFT} --data single.jsonl", "line 5: broken JSON (Expecting property name enclosed in double quotes"),
    (f"{SFT} --data wrapped.json", "wrapped.json has the columns data; accepted are: input_ids;"),
    (f"{SFT} --data question.jsonl", "map them with --dataset_columns"),
    (f"{SFT} --data lacking.jsonl", "lacking.jsonl, row 5: 'completion' is missing"),
    (f"{SFT} --data null.jsonl", "row 2: 'messages' has a message without 'content'"),
    (f"{SFT} --data number.jsonl", "row 2: 'messages' has a message whose 'content' is a number, not text (number 2"),
    (f"{SFT} --data completion.jsonl", "row 5: 'completion' must be text, found a number"),
    (f"{SFT} --data role.jsonl", "row 2: 'messages' has a message with the role 'assitant' (number 2); write 'assistant'"),
    (f"{SFT} --data human.jsonl", "with the role 'human' (number 1); write 'user'"),
    (f"{SFT} --data roleless.jsonl", "row 1: 'messages' must be a list of messages, each with 'role' and 'content'"),
    (f"{SFT} --data users.jsonl --dataset_format last_answer", "row 1: messages must end in an answer of the assistant"),
    (f"{SFT} --data users.jsonl --assistant_only_loss --chat_template_path answers.jinja", "has no assistant tokens"),
    (f"{SFT} --data talk.jsonl --assistant_only_loss --chat_template_path strict.jinja", "does not mark what the assistant"),
    (f"{SFT} --data string.jsonl", "'messages' must be a list of messages, found a string"),
    (f"{SFT} --data mixed.jsonl", "row 5: 'prompt' is a list, unlike the rows before"),
    (f"{SFT} --data halves.jsonl", "row 1: 'completion' is a list, unlike 'prompt': make both text"),
    (f"{SFT} --data list.jsonl", "row 1: 'text' must be text, found a number"),
    (f"{SFT} --data ids.jsonl", "Row 1 has 999999 among its input_ids"),
    (f"{SFT} --data untrained.jsonl", "no trained token"),
    (f"{SFT} --data sharegpt.jsonl", "has a message without 'value'"),
    (f"{SFT} --data windows.jsonl", "windows.jsonl is not UTF-8 text (byte 0): save it as UTF-8"),
    (f"{SFT} --data data.parquet", "data.parquet is not a readable parquet file"),
    (f"{SFT} --data HuggingFaceH4/ultrachat", "Cannot load dataset 'HuggingFaceH4/ultrachat'"),
    (f"{SFT} --data system.jsonl --chat_template_path strict.jinja", "System role not supported. Change the messages"),
    (f"{SFT} --data talk.jsonl --chat_template_path broken.jinja", "cannot render a conversation: Unexpected end of template"),
    (f"{SFT} --data talk.jsonl --chat_template_path none.jinja", "none.jinja is neither a file here nor a model"),
    (f"{SFT} --data talk.jsonl --model no_template", "Give one with --chat_template_path"),
    (f"{SFT} --data talk.jsonl --completion_only_loss true", "take --assistant_only_loss true"),
    (f"{SFT} --dataset_columns prompt=question", "dataset_columns is not JSON"),
    (f"""{SFT} --dataset_columns '{{"prompt": "question"}}'""", "no column 'question' to use as 'prompt'; found prompt,"),
    (f"{SFT} --dataset_train_split trian", "Cannot take split 'trian' of chats.jsonl"),
    (f"{SFT} --dataset_train_split train[100:]", "chats.jsonl has no rows in split 'train[100:]'"),
    (f"{SFT} --dataset_format chta", "choose from 'as_is', 'chat', 'last_answer'"),
    (f"{SFT} --dataset_format last_answer", "last_answer splits messages, and chats.jsonl has prompt + completion"),
    (f"{SFT} --system_prompt 'be brief'", "add --dataset_format chat"),
    (f"{SFT} --test_split_size 1.5", "test_split_size is a share between 0 and 1 or a number of rows, got 1.5"),
    (f"{SFT} --test_split_size 30", "test_size=30 should be"),
    (f"{SFT} --eval_strategy epoch", "Cannot take split 'test' of chats.jsonl"),
    (f"{SFT} --eval_strategy epochs", "choose from 'no', 'steps', 'epoch'"),
    (f"{SFT} --eval_dataset_name chats.jsonl", "eval_strategy is no"),
    (f"{SFT} --streaming true --max_steps -1", "say how long to train with --max_steps"),
]
OBJECTIVES = [
    (f"{SFT} --objective gemm", "Unknown objective 'gemm'. Did you mean gem"),
    (f"""{SFT} --objective sed --objective_kwargs '{{"treshold": 0.5}}'""", "no hyper-parameter 'treshold'; it takes top_k"),
    (f"""{SFT} --objective sed --objective_kwargs '{{"threshold": 95}}'""", "a probability above 0 and at most 1"),
    (f"""{SFT} --objective sed --objective_kwargs '{{"top_k": 100000}}'""", "must be below the vocabulary size 88"),
    (f"""{SFT} --objective gem --objective_kwargs '{{"threshold": 0.5}}'""", "it takes temperature"),
    (f"""{SFT} --objective gem --objective_kwargs '{{"temperature": -1}}'""", "must be a number above 0, got -1"),
    (f"{SFT} --objective sed --objective_kwargs top_k=10", "objective_kwargs is not JSON"),
    (f"{SFT} --objective sed --threshold 0.5", "Hyper-parameters of an objective go into objective_kwargs"),
    (f"{SFT} --objective sed --calibration_fraction 30", "calibration_fraction must be between 0 and 1, got 30"),
    (f"{SFT} --objective sed --reference start", "leave reference='start' out"),
    (f"{SFT} --objective eksft --reference ./bse", "There is no model in ./bse"),
    (f"{SFT} --objective nowhere:loss", "Run from the folder that holds the file"),
    (f"{SFT} --objective mistaken_syntax:loss", "SyntaxError: expected ':' (mistaken_syntax.py, line 1)."),
    (f"{SFT} --objective mistaken:los", "Module 'mistaken' has no function 'los'"),
    (f"{SFT} --objective mistaken:rate", "is a int, not a function"),
    (f"{SFT} --objective mistaken:loss", "asks for 'logits', which is not a statistic"),
    (f"{SFT} --objective mistaken:mean", "it must return one loss per token"),
    (f"{SFT} --objective mistaken:fails", "no attribute 'nope' (mistaken.py, line 10: return logprob.nope)"),
    (f"{SFT} --loss_type dft --objective sed", "two losses; leave one of them out"),
]
TRAINING = [
    (f"{SFT} --use_peft true --lora_target_modules q_prj", "Target modules q_prj not found in the base model"),
    (f"{SFT} --use_peft true --lora_r 0", "`r` should be a positive integer value but the value passed is 0"),
    (f"{SFT} --lora_r 8", "--lora_r is for LoRA: add --use_peft true"),
    (f"{SFT} --use_peft maybe", "expected one of yes/no, true/false"),
    (f"{SFT} --bf16 true --fp16 true", "At most one of fp16 and bf16"),
    (f"{SFT} --fp16 true", "--fp16 needs a GPU"),
    (f"{SFT} --bf16 true --use_cpu false", "doesn't support bf16/gpu"),
    (f"{SFT} --per_device_train_batch_size 0", "--per_device_train_batch_size must be at least 1, got 0"),
    (f"{SFT} --gradient_accumulation_steps 0", "--gradient_accumulation_steps must be at least 1, got 0"),
    (f"{SFT} --max_steps 0", "--max_steps must be at least 1"),
    (f"{SFT} --max_steps -1 --num_train_epochs -1", "--num_train_epochs must be above 0, got -1"),
    (f"{SFT} --max_length 0", "--max_length must be at least 2, got 0"),
    (f"{SFT} --max_length 2", "prompts that fill --max_length"),
    (f"{SFT} --learning_rate 1e-5x", "invalid float value: '1e-5x'"),
    (f"{SFT} --lr 1e-5", "did you mean learning_rate"),
    (f"{SFT} --batch_size 4", "did you mean per_device_train_batch_size"),
    (f"{SFT} --epochs 3", "did you mean num_train_epochs?"),
    (f"{SFT} --lr_scheduler_type cosin", "choose from 'linear', 'cosine'"),
    (f"{SFT} --optim adamw_trch", "choose from 'adamw_torch'"),
    (f"{SFT} --logging_steps 0", "requires non-zero --logging_steps"),
    (f"{SFT} --load_best_model_at_end true", "requires the save and eval strategy to match"),
    (f"{SFT} --report_to wandb", "--report_to wandb: it is not installed"),
    (f"{SFT} --packing true --max_length null", "When packing is enabled, `max_length` can't be `None`"),
    (f"{SFT} --packing on", "expected one of yes/no"),
    (f"{SFT} --num_processes 0", "--num_processes must be at least 1, got 0"),
    (f"{SFT} --accelerate_config multigpu", "multigpu is neither a file nor a valid config"),
    (f"{SFT} --eos_token '<end>'", "('<end>') is not found in the vocabulary"),
    (f"{SFT} --resume_from_checkpoint true", "out holds no complete checkpoint to resume from"),
    (f"{SFT} --resume_from_checkpoint start", "start cannot be resumed from"),
    (f"{SFT} --resume_from_checkpoint there", "There is no checkpoint folder there"),
    (f"{SFT} --output_dir chats.jsonl", "The output folder chats.jsonl is a file"),
    (f"{SFT} --output_dir chats.jsonl/out", "Not a directory: 'chats.jsonl/out'"),
    (f"{SFT} --output_dir start", "start already holds model.safetensors"),
    (f"{SFT} --output_dir /proc/out", "No such file or directory: '/proc/out'"),
    (f"{SFT} --output_dir other", "holds another run"),
]
COMMAND_LINE = [
    ("trian --model start", "there is no such subcommand"),
    ("sfft --model start", "Did you mean sft"),
    ("sft --config none.yaml", "No recipe at none.yaml"),
    ("sft --config tabs.yaml", "'\\t' that cannot start any token"),
    ("sft --config list.yaml", "list.yaml must be a mapping of options to values"),
    ("sft --config colon.yaml", "colon.yaml must be a mapping of options to values"),
    ("sft --config typo.yaml", "unknown option 'learning_rat'; did you mean learning_rate?"),
    ("sft --config alias.yaml", "data and dataset_name are one option"),
    ("sft --config repeated.yaml", "learning_rate is given twice"),
    ("sft --config nested.yaml", "unknown option 'training'"),
    ("sft --config typo.yaml --config tabs.yaml", "--config is given twice (typo.yaml, tabs.yaml)"),
    ("sft --config", "--config needs a value after it"),
    (f"{SFT} learning_rate=1e-5", "unexpected 'learning_rate=1e-5'; options are --key value"),
    (f"{SFT} --learning_rate", "--learning_rate/--learning-rate: expected one argument"),
    ("objectives sed", "unknown option 'sed'"),
]
REINFORCEMENT = [
    ("grpo --model start --data chats.jsonl", "--reward is missing"),
    (f"{GRPO} --reward mth", "Unknown reward 'mth'. Did you mean math"),
    (f"{GRPO} --reward mistaken_reward:many", "has no function 'many'"),
    (f"{GRPO} --reward mistaken_reward:few", "gave 1 values for 16 completions"),
    (f"{GRPO} --reward mistaken_reward:narrow", "got an unexpected keyword argument 'answer'"),
    (f"{GRPO} --reward mistaken_reward:none", "'NoneType' object is not iterable"),
    (GRPO, "Raise max_completion_length, or check that SFT trained the end token"),
    (f"{GRPO} --data goldless.jsonl", "goldless.jsonl, row 2: the right answer is missing"),
    (f"{GRPO} --data prompts.jsonl", "needs a column answer or solution in the data; there are prompt"),
    (f"{GRPO} --reward countdown", "needs the columns numbers and target"),
    (f"{GRPO} --data question.jsonl", "has the columns question, reply; accepted are: prompt"),
    (f"{GRPO} --num_generations 1", "at least 2 generations per prompt"),
    (f"{GRPO} --num_generations 3", "(4) must be divisible by num_generations (3)"),
    (f"{GRPO} --temperature 0", "temperature 0 gives 4 equal samples"),
    (f"{GRPO} --num_iterations 0", "--num_iterations must be at least 1, got 0"),
    (f"{GRPO} --use_vllm true", "vLLM is not installed"),
    (f"{GRPO} --reward_weights 1 2", "Number of reward weights (2) must match number of reward functions (1)"),
    (f"{GRPO} --streaming true", "cannot train on a stream"),
]
EVALUATION = [
    ("eval --data chats.jsonl", "--model is missing"),
    (EVAL, "Nothing to measure: give --benchmarks"),
    (f"{EVAL} --benchmarks gsm8", "Unknown benchmark 'gsm8'. Did you mean gsm8k"),
    (f"{EVAL} --benchmarks gsm8k", "Give gsm8k locally instead: --data_dir FOLDER"),
    (f"{EVAL} --benchmarks gsm8k --data_dir nothing", "nothing has no gsm8k.jsonl"),
    (f"{EVAL} --benchmarks none.yaml", "There is no benchmark file at none.yaml"),
    (f"{EVAL} --benchmarks sourceless.yaml", "sourceless.yaml lacks 'source'"),
    (f"{EVAL} --benchmarks nowhere.yaml", "there is no nowhere.jsonl in"),
    (f"{EVAL} --benchmarks grader.yaml", "Unknown reward 'mth'"),
    (f"{EVAL} --benchmarks key.yaml", "unknown key 'answr'. Did you mean answer"),
    (f"{EVAL} --benchmarks column.yaml", "good.jsonl, line 1: 'question' is missing or not text"),
    (f"{EVAL} --benchmarks template.yaml", "cannot be filled for a ('hint')"),
    (f"{EVAL} --benchmarks same.yaml", "the id 'a' stands for an earlier row already"),
    (f"{EVAL} --benchmarks good.yaml --model no_template", "or ask in plain text with --prompt_format text"),
    (f"{EVAL} --benchmarks good.yaml --model cut", "cut/model.safetensors is cut off or damaged"),
    (f"{EVAL} --benchmarks good.yaml --model no_tokenizer", "Save the model's tokenizer beside it"),
    (f"{EVAL} --benchmarks good.yaml --chat_template_path broken.jinja", "cannot render a conversation"),
    (f"{EVAL} --benchmarks good.yaml --max_new_tokens 4000", "set --max_new_tokens to 251 or less"),
    (f"{EVAL} --benchmarks good.yaml --num_samples 0", "--num_samples must be at least 1, got 0"),
    (f"{EVAL} --benchmarks good.yaml --temperature -1", "temperature must be at least 0, got -1"),
    (f"{EVAL} --benchmarks good.yaml --temperatures 0.5,warm", "must be numbers separated by commas, got '0.5,warm'"),
    (f"{EVAL} --benchmarks good.yaml --top_p 1.5", "top_p must lie in (0, 1], got 1.5"),
    (f"{EVAL} --benchmarks good.yaml --grader strct", "choose from 'lenient', 'strict'"),
    (f"{EVAL} --benchmarks good.yaml --reward math", "--reward grades the samples of --data"),
    (f"{EVAL} --benchmarks good.yaml --forgetting gem", "--forgetting needs --reference"),
    (f"{EVAL} --benchmarks good.yaml --output_dir chats.jsonl", "The output folder chats.jsonl is a file"),
    (f"{EVAL} --prompts poems.jsonl", "poems.jsonl has the columns theme"),
    (f"{EVAL} --prompts prompts.jsonl --num_samples 1", "judged for diversity, which one sample a prompt has none of"),
    ("eval --model start --data prompts.jsonl", "give a --reward or --num_samples to draw answers"),
    (f"{EVAL} --data goldless.jsonl --reward math", "goldless.jsonl, row 2: the right answer is missing"),
    (f"{EVAL} --data talk.jsonl", "give a --reward or --num_samples too"),
    ("eval --rescore nothing", "nothing holds no finished evaluation"),
    ("eval --completions noid.jsonl --benchmarks good.yaml", "noid.jsonl, line 1: no id"),
    ("eval --completions texts.jsonl --benchmarks good.yaml", "a text for 'b'; good has no such problem"),
]
EXPERIMENTS = [
    ("experiment", "no experiment is given"),
    ("experiment x_methods.yaml", "methods is missing"),
    ("experiment x_list.yaml", "methods must be a mapping, got ['nll', 'sed']"),
    ("experiment x_words.yaml", "method CE must be a mapping such as {objective: sed}, got 'nll'"),
    ("experiment x_number.yaml", "method SED must be a mapping such as {objective: sed}, got 0.3"),
    ("experiment x_step.yaml", "sft of method CE must be a mapping"),
    ("experiment x_key.yaml", "unknown 'metods'; did you mean methods?"),
    ("experiment x_control.yaml", "unknown 'no_stf'; did you mean no_sft?"),
    ("experiment x_controls.yaml", "controls must be a mapping, got False"),
    ("experiment x_fraction.yaml", "weight of weight_averaging must lie between 0 and 1, got 50"),
    ("experiment x_seeds.yaml", "seeds must be a number of seeds or a list of different ones, got 'three'"),
    ("experiment x_baseline.yaml", "the baseline 'SFT' is not a method"),
    ("experiment x_workers.yaml", "workers (0) and cpus_per_stage (1) must be at least 1"),
    ("experiment x_objective.yaml", "SED-0-sft (sft): Unknown objective 'sde'. Did you mean sed?"),
    ("experiment x_option.yaml", "unknown option 'treshold'"),
    ("experiment x_data.yaml", "There is no data at chat.jsonl"),
    ("experiment x_reward.yaml", "CE-0-grpo (grpo): --reward is missing"),
    ("report", "give --results with folders"),
    ("report --results nothing", "nothing holds no finished evaluation or experiment"),
    ("average --base start", "--base and --tuned are needed"),
    ("average --base start --tuned start --weight 1.5", "weight is 1.5; it is the share of the tuned model, from 0 to 1"),
    ("average --base start --tuned wider", "[88, 32] in start and [88, 64] in wider: different architectures"),
    ("average --base start --tuned cut", "cut/model.safetensors is cut off or damaged"),
    ("average --base start --tuned no_weights", "no_weights holds no *.safetensors"),
    ("average --base start --tuned large --output_dir large", "The output folder large is one of the two models"),
    ("world reckall", "Unknown world 'reckall'. Did you mean recall?"),
    ("quickstart --seeds 0", "seeds (0) must be at least 1"),
    ("quickstart --objectives sde", "Unknown objective 'sde'. Did you mean sed?"),
]
MISTAKES = [
    *MODELS, *DATA, *OBJECTIVES, *TRAINING, *COMMAND_LINE, *REINFORCEMENT, *EVALUATION, *EXPERIMENTS,
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer):
    """A folder with models and files, good and bad."""
    place = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (place / name).write_text(text, encoding="utf-16" if name == "windows.jsonl" else "utf-8")
    tiny_llama(len(tokenizer)).save_pretrained(place / "start")
    tokenizer.save_pretrained(place / "start")
    for name in ("no_config", "no_weights", "no_tokenizer", "no_template", "cut", "bad_config", "wider", "unknown", "large"):
        shutil.copytree(place / "start", place / name)
    for gone in ("no_config/config.json", "no_weights/model.safetensors", "no_tokenizer/tokenizer*",
                 "no_template/chat_template.jinja"):  # fmt: skip
        for path in place.glob(gone):
            path.unlink()
    with (place / "cut/model.safetensors").open("r+b") as file:
        file.truncate(20000)
    settings = json.loads((place / "start/config.json").read_text())
    (place / "unknown/config.json").write_text(json.dumps({**settings, "model_type": "lama", "architectures": None}))
    (place / "bad_config/config.json").write_text(str(settings))
    tiny_llama(len(tokenizer), hidden_size=64).save_pretrained(place / "wider")
    tiny_llama(len(tokenizer) - 3).save_pretrained(place / "large")
    for name, file, content in (
        ("adapter", "adapter_config.json", {"base_model_name_or_path": "./gone/base"}),
        ("other", "manypaths_run.json", {"subcommand": "eval", "settings": {}, "parts": {}, "notes": {}}),
    ):
        (place / name).mkdir()
        (place / name / file).write_text(json.dumps(content))
    (place / "nothing").mkdir()
    return place


@pytest.fixture(scope="module", autouse=True)
def no_progress_bars():
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
    logging.enable_progress_bar()


def contents(place):
    paths = [path for path in place.rglob("*") if "__pycache__" not in path.parts]
    return {path: path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(place, line, message, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = contents(place)
    code = main(shlex.split(line))
    told, error = capsys.readouterr()
    assert code == 2 and len(error.splitlines()) == 1, error
    assert error.startswith(f"manypaths {line.split()[0]}: ") and message in error
    assert "Traceback" not in told + error and contents(place) == before
