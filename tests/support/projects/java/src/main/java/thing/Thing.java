package thing;

/** Something to build. */
public final class Thing {
    private Thing() {}

    public static String word() {
        return "built";
    }
}
