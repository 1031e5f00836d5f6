"""Where samples come from: folders of images, tables of text, archives of arrays, data sets of Hugging Face."""
