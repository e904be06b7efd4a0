"""Many ranks as one run: process groups, what each holds of the weights, who leads and who follows."""
