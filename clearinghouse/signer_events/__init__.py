"""What remote signers say they signed, held against what was issued: is a signer used behind our back? Never bills."""
