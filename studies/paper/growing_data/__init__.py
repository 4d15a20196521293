"""Training data that grow within one run: sigma follows, and is as good as one chosen anew at every size."""
