"""What several networks in one training bring, and what comparing them in the training loss does."""
