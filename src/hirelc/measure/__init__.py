"""What a policy is worth: sensitivity, logit-MSE proxy, fine-tuning, evaluation."""
