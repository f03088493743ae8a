"""The Penn Treebank tokenizer of coco-caption."""
