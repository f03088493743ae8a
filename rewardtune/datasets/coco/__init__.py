"""From COCO's files to a data set."""
