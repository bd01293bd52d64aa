def run_recurrent_gla(*a): raise NotImplementedError
