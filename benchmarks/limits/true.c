/* What is started in the new namespaces: nothing. */
int main(void) { return 0; }
