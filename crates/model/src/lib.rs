//! Llama-family and GPT-2 transformers with hand-written backward passes and Hugging Face I/O
